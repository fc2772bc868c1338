"""The KFP component `fingerprint`."""

from kfp import dsl


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def fingerprint(
    name: str,
    source: str,
    recipe: str,
    store: str,
    run: dsl.OutputPath(str),  # type: ignore[valid-type]
    champion: dsl.OutputPath(int),  # type: ignore[valid-type]
) -> str:
    """Identify the data, the run and the champion to beat, without fetching anything.

    Args:
        name: the model's name.
        source: `data` section (Source) as JSON.
        recipe: fingerprint of the configuration and the code that decide the result.
        store: `store` section as JSON.
        run: the run's fingerprint, from data and recipe.
        champion: the version to compare with; 0 when there is none.

    Returns:
        The data's fingerprint.
    """
    from components.fingerprint.identity import identify

    return identify(name, source, recipe, store, run, champion)
