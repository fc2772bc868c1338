"""A model's place on the cluster of an environment, for the commands that do by hand what deploy does."""

from collections.abc import Callable, Sequence

from components.deploy.settings import Rollout
from components.deploy.site import Site
from components.errors import ConfigError
from components.kubernetes.cluster import connect
from components.serve.settings import Serving
from components.store.models import open_store
from pipelines import recorded
from pipelines.environment import load_environment


def find_site(
    name: str,
    environment_name: str,
    overrides: Sequence[str],
    say: Callable[[str], None],
    version: int | None,
) -> Site:
    """Return where a model is served; its sections `serving` and `rollout` are those of a version's run.

    Args:
        name: the model's name.
        environment_name: the environment.
        overrides: `key=value`, with the section's name in the key.
        say: takes each sentence about how it goes.
        version: the version; the champion when None.

    Raises:
        ConfigError: the environment is no cluster, or something in it is wrong.
        NotFoundError: there is no such version.
        ClusterError: there is no cluster.
    """
    environment = load_environment(environment_name, overrides)
    store = environment.model_store()
    if environment.kind != "kubernetes" or store is None:
        raise ConfigError(
            f"The environment {environment_name} is this machine, which has no rollouts. Name a cluster's "
            "with -e, such as kind; `modelyard serve` serves here."
        )
    models = open_store(store)
    manifest = recorded.manifest_of(models, name, version)
    target = environment.target()
    return Site(
        name=name,
        cluster=connect(target.namespace),
        models=models,
        store=environment.inside(store).text(),
        serving=recorded.section("serving", Serving, overrides, manifest).model_dump(mode="json"),
        rollout=recorded.section("rollout", Rollout, overrides, manifest),
        target=target,
        say=say,
    )
