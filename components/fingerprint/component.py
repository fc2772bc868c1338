"""The KFP component `fingerprint`."""

from kfp import dsl


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def fingerprint(
    spec: str,
    skip_unchanged: bool,
    force_after: int,
    identity: dsl.OutputPath(str),  # type: ignore[valid-type]
) -> str:
    """Identify the data, the run and the champion to compare with, without downloading data.

    Args:
        spec: FingerprintSpec as JSON.
        skip_unchanged: end the run if the champion has the same data, configuration and code.
        force_after: age in seconds after which the model is trained again nevertheless; 0: never.
        identity: Identity as JSON: the fingerprints of run and data, and the version to compare with.

    Returns:
        The cache key for ingest, derived from the data and the pipeline root, and changed each time the model
        is trained again; "unchanged" if the run ends.
    """
    from modelyard.components.step import step

    with step("fingerprint"):
        from modelyard.components.fingerprint.identity import identify
        from modelyard.components.fingerprint.spec import FingerprintSpec

        return identify(FingerprintSpec.from_json(spec), skip_unchanged, force_after, identity)
