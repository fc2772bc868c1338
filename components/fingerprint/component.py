"""The KFP component `fingerprint`."""

from kfp import dsl


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def fingerprint(
    name: str,
    source: str,
    recipe: str,
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
        recipe: fingerprint of the configuration and the code that decide the result.
        store: `store` section as JSON.
        root: where the artifacts of the run are. What lies elsewhere is not taken from the cache then, which
            looks at no places; empty on a laptop, whose cache has one.
        skip_unchanged: end the run when the champion was made of the same data, configuration and code.
        force_after: seconds after whose passing such a champion is trained again all the same; 0: never.
        run: the run's fingerprint, from data and recipe.
        champion: the version to compare with; 0 when there is none.
        data: the data's fingerprint.

    Returns:
        What ingest is asked for: a key for the data and the root, another one when the champion is trained
        again all the same, and "unchanged" when the run is to end.
    """
    from modelyard.components import lifeline

    lifeline.follow()
    from modelyard.components.fingerprint.identity import identify

    return identify(name, source, recipe, store, root, skip_unchanged, force_after, run, champion, data)
