"""The KFP component `fingerprint`."""

from kfp import dsl


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def fingerprint(
    spec: str,
    skip_unchanged: bool,
    force_after: int,
    identity: dsl.OutputPath(str),  # type: ignore[valid-type]
) -> str:
    """Identify the data, the run and the champion to beat, without fetching anything.

    Args:
        spec: FingerprintSpec as JSON.
        skip_unchanged: end the run when the champion was made of the same data, configuration and code.
        force_after: age of such a champion, in seconds, from which it is trained again; 0: never.
        identity: Identity as JSON: the fingerprints of run and data, and the version to compare with.

    Returns:
        The cache key for ingest: of the data and the root, and a new one each time the champion is trained
        again; "unchanged" when the run ends here.
    """
    from modelyard.components.step import step

    with step("fingerprint"):
        from modelyard.components.fingerprint.identity import identify
        from modelyard.components.fingerprint.spec import FingerprintSpec

        return identify(FingerprintSpec.of(spec), skip_unchanged, force_after, identity)
