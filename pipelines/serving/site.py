"""A model's place on the cluster of an environment, for the commands that do by hand what deploy does."""

from collections.abc import Callable, Sequence

from modelyard.components.deploy.settings import Rollout
from modelyard.components.deploy.site import Place, Site
from modelyard.components.errors import ConfigError
from modelyard.components.kubernetes.cluster import connect
from modelyard.components.kubernetes.pod_problem import Json
from modelyard.components.serve.settings import Serving
from modelyard.components.store.models import open_store
from modelyard.components.store.settings import Store
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.serving import recorded


def find_place(name: str, environment_name: str) -> Place:
    """Return where a model is served, for those who only look or take a candidate away: no image is needed.

    Raises:
        ConfigError: the environment is no cluster, or something in it is wrong.
        ClusterError: there is no cluster.
    """
    environment, store = _cluster(environment_name, ())
    return Place(name, connect(environment.serving.namespace), open_store(store))


def find_site(
    name: str,
    environment_name: str,
    overrides: Sequence[str],
    say: Callable[[str], None],
    version: int | None,
    image: str | None = None,
) -> Site:
    """Return where a model is served, and with what; each version with the sections that its own run had.

    Args:
        name: the model's name.
        environment_name: the environment.
        overrides: `key=value`, with the section's name in the key.
        say: takes each sentence about how it goes.
        version: the one to be served, whose section `rollout` holds; the champion when None.
        image: of its servers; the environment's when None.

    Raises:
        ConfigError: the environment is no cluster, or something in it is wrong.
        NotFoundError: there is no such version.
        ClusterError: there is no cluster.
    """
    environment, store = _cluster(environment_name, overrides)
    models = open_store(store)
    manifest = recorded.manifest_of(models, name, version)
    target = environment.target(image)

    def serving(wanted: int) -> Json:
        section = recorded.section("serving", Serving, overrides, models.manifest(name, wanted))
        return section.model_dump(mode="json", exclude_unset=True)  # its image may not know later keys

    return Site(
        name=name,
        cluster=connect(target.namespace),
        models=models,
        store=environment.inside(store).text(),
        serving=serving,
        rollout=recorded.section("rollout", Rollout, overrides, manifest),
        target=target,
        say=say,
    )


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
