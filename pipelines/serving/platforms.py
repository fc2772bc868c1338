"""A model on the cluster of an environment, for the commands that do by hand what the step deploy does.

Each version is served with the sections of the configuration that its own run had.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from pydantic import ValidationError

from modelyard.components.artifacts import Manifest
from modelyard.components.deploy.serving_platform import ModelDeployment, ServingPlatform
from modelyard.components.deploy.settings import Rollout
from modelyard.components.errors import ConfigError
from modelyard.components.kubernetes import Json
from modelyard.components.kubernetes.cluster import connect
from modelyard.components.serve.settings import Serving
from modelyard.components.settings import Settings
from modelyard.components.store.models import ModelStore, open_store
from modelyard.components.store.settings import Store
from modelyard.pipelines.config.config import check_overrides, load_section
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.environments.load import load_environment

S = TypeVar("S", bound=Settings)


def find_deployment(name: str, environment_name: str) -> ModelDeployment:
    """Return what serves a model, to look at it or to take a candidate away: no image is needed.

    Raises:
        ConfigError: the environment is no cluster, or something in it is wrong.
        ClusterError: there is no cluster.
    """
    environment, store = _cluster(environment_name, ())
    return ModelDeployment(name, connect(environment.serving.namespace), open_store(store))


def find_platform(
    name: str,
    environment_name: str,
    overrides: Sequence[str],
    log: Callable[[str], None],
    version: int | None,
    image: str | None = None,
) -> ServingPlatform:
    """Return what serves a model, and with what.

    Args:
        name: the model's name.
        environment_name: the environment.
        overrides: `key=value`, with the section's name in the key.
        log: takes each sentence about the progress.
        version: the one to be served, whose section `rollout` holds; the champion when None.
        image: of its servers; the environment's when None.

    Raises:
        ConfigError: the environment is no cluster, or something in it is wrong.
        NotFoundError: there is no such version.
        ClusterError: there is no cluster.
    """
    check_overrides(overrides, ("rollout", "serving", "environment"))
    environment, store = _cluster(environment_name, overrides)
    models = open_store(store)
    manifest = recorded_manifest(models, name, version)
    target = environment.target(image)

    def serving(number: int) -> Json:
        section = recorded_section("serving", Serving, overrides, models.manifest(name, number))
        return section.model_dump(mode="json", exclude_unset=True)  # its image may not know later keys

    return ServingPlatform(
        name=name,
        cluster=connect(target.namespace),
        models=models,
        store=environment.inside(store).text(),
        serving=serving,
        rollout=recorded_section("rollout", Rollout, overrides, manifest),
        target=target,
        log=log,
    )


def recorded_manifest(models: ModelStore, name: str, version: int | None) -> Manifest | None:
    """Return the manifest of a version, of the champion when None; None when there is no champion.

    Raises:
        NotFoundError: there is no such version.
    """
    champion = models.champion(name) if version is None else None
    version = champion.version if champion else version
    return models.manifest(name, version) if version is not None else None


def recorded_section(name: str, kind: type[S], overrides: Sequence[str], manifest: Manifest | None) -> S:
    """Return a section as a version's run had it, or its defaults if that modelyard knew other keys.

    Args:
        name: the section's key.
        kind: its model.
        overrides: `key=value`; those of other sections are left out.
        manifest: the version's.
    """
    try:
        recorded = kind.model_validate(manifest.config.get(name, {})) if manifest else None
    except ValidationError:
        recorded = None
    own = [override for override in overrides if override.startswith(f"{name}.")]
    return load_section(name, kind, own, below=recorded)


def _cluster(environment_name: str, overrides: Sequence[str]) -> tuple[Environment, Store]:
    """Return an environment that is a cluster, and its model store as this machine reaches it."""
    environment = load_environment(environment_name, overrides)
    store = environment.model_store()
    if environment.kind != "kubernetes" or store is None:
        raise ConfigError(
            f"The environment {environment_name} is this machine, which has no rollouts. Name a cluster's "
            "with -e, such as kind; `modelyard serve` serves here."
        )
    return environment, store
