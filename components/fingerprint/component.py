"""The KFP component `fingerprint`."""

from kfp import dsl


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def fingerprint(
    name: str,
    source: str,
    recipe_sha256: str,
    store: str,
    root: str,
    skip_unchanged: bool,
    force_after: int,
    run: dsl.OutputPath(str),  # type: ignore[valid-type]
    champion: dsl.OutputPath(int),  # type: ignore[valid-type]
    data: dsl.OutputPath(str),  # type: ignore[valid-type]
) -> str:
    """Identify the data, the run and the champion to beat, without fetching anything.

    Args:
        name: the model's name.
        source: `data` section (Source) as JSON.
        recipe_sha256: fingerprint of the configuration and the code that decide the result.
        store: `store` section as JSON.
        root: the pipeline root, so that no run takes artifacts of another root from the cache; empty on this
            machine, whose cache has only one.
        skip_unchanged: end the run when the champion was made of the same data, configuration and code.
        force_after: age of such a champion, in seconds, from which it is trained again; 0: never.
        run: the run's fingerprint, from data and recipe.
        champion: the version to compare with; 0 when there is none.
        data: the data's fingerprint.

    Returns:
        The cache key for ingest: of the data and the root, and a new one each time the champion is trained
        again; "unchanged" when the run ends here.
    """
    from modelyard.components.step import step

    with step("fingerprint"):
        from modelyard.components.fingerprint.identity import identify

        return identify(
            name, source, recipe_sha256, store, root, skip_unchanged, force_after, run, champion, data
        )
