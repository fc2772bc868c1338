"""The serving platform and server of a model in an environment, for commands.

Each version is served with the sections `rollout` and `serving` of the run that trained it.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pydantic import ValidationError

from modelyard.components.artifacts import Manifest
from modelyard.components.deploy.platforms import find_platform_class, open_platform
from modelyard.components.deploy.platforms.base import (
    DEFAULT_SERVER,
    PlatformConfig,
    RunningServer,
    ServingPlatform,
)
from modelyard.components.deploy.rollout import RolloutController
from modelyard.components.deploy.settings import Rollout
from modelyard.components.errors import ConfigError, DamagedError
from modelyard.components.kubernetes.cluster import ProxiedServer, connect, read_token
from modelyard.components.serve.settings import Serving
from modelyard.components.server import HttpServer, Server
from modelyard.components.settings import Settings
from modelyard.components.store.models import ModelStore, open_store
from modelyard.components.store.settings import Store
from modelyard.pipelines.config.config import check_overrides, load_section
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.environments.load import load_environment

S = TypeVar("S", bound=Settings)


def find_platform(name: str, environment: Environment, store: Store) -> ServingPlatform:
    """Return the serving platform of a model, to read its status; no image is needed.

    `store` is the section `store` with the endpoint for this machine.

    Raises:
        ClusterError: there is no cluster.
    """
    return _open_platform(name, environment, store, (), Rollout(), lambda _: None, needs_image=False)


def find_server(name: str, environment: Environment) -> Server:
    """Return a model's server on a cluster: at its URL in the environment, or through the API server.

    Raises:
        ClusterError: the environment has no URL for the model, and there is no cluster.
    """
    target = environment.target(needs_image=False)
    if url := environment.serving.urls.get(name):
        secret = target.token_secret
        token = read_token(connect(target.namespace), secret) if secret else None
        return HttpServer(url.rstrip("/"), proxies=True, token=token)
    service = urlsplit(str(find_platform_class(target).client_url(name, target)))
    host, port = str(service.hostname).partition(".")[0], service.port or 80
    cluster, tls = connect(target.namespace), service.scheme == "https"
    token = read_token(cluster, target.token_secret)
    return ProxiedServer(cluster, "Service", host, port, token=token, tls=tls)


def find_controller(
    name: str,
    environment_name: str,
    by: str,
    *,
    overrides: Sequence[str] = (),
    log: Callable[[str], None] = lambda _: None,
    version: int | None = None,
    needs_image: bool = False,
    store: Store | None = None,
    server: RunningServer = DEFAULT_SERVER,
) -> RolloutController:
    """Return the controller of a model's rollouts, on a cluster or this machine.

    Args:
        name: the model's name.
        environment_name: the environment.
        by: the user or program, for the history.
        overrides: `key=value`, with the section's name in the key.
        log: receives progress messages.
        version: the version to deploy, whose section `rollout` is used; the defaults if None.
        needs_image: whether a missing server image is an error now, instead of when a server is started.
        store: the section `store` for servers of this machine; None: that of the environment.
        server: a running server of this machine whose status is read.

    Raises:
        ConfigError: the environment is a cluster and `server` is set.
        NotFoundError: there is no such version.
        ClusterError: there is no cluster.
    """
    check_overrides(overrides, ("rollout", "serving", "environment"))
    environment = load_environment(environment_name, overrides)
    if not environment.on_cluster:
        store = store or load_section("store", Store, defaults=environment.model_store())
    elif server != DEFAULT_SERVER:
        raise ConfigError(
            f"The environment {environment_name} is a cluster, whose status comes from its Deployments. "
            "Remove --url, --token-file and --ca, or -e."
        )
    else:
        connect(environment.target(needs_image).namespace)  # raises before the store is read
        store = environment.model_store() or Store()
    models, manifest = open_store(store), None
    with suppress(DamagedError):  # verification reports it
        manifest = models.manifest(name, version) if version is not None else None
    rollout = load_recorded_section("rollout", Rollout, overrides, manifest)
    platform = _open_platform(name, environment, store, overrides, rollout, log, needs_image, server)
    return RolloutController(platform, models, rollout, by, log)


def load_recorded_manifest(models: ModelStore, name: str, version: int | None) -> Manifest | None:
    """Return the manifest of a version, or of the champion; None without a champion.

    Raises:
        NotFoundError: there is no such version.
    """
    champion = models.champion(name) if version is None else None
    version = champion.version if champion else version
    return models.manifest(name, version) if version is not None else None


def load_recorded_section(
    name: str, kind: type[S], overrides: Sequence[str], manifest: Manifest | None, **options: Any
) -> S:
    """Return a section as a version's run had it; the defaults if that section is invalid.

    `overrides` of other sections are ignored. `options` are those of `load_section`.
    """
    try:
        defaults = kind.model_validate(manifest.config.get(name, {})) if manifest else None
    except ValidationError:
        defaults = None
    overrides = [override for override in overrides if override.startswith(f"{name}.")]
    return load_section(name, kind, overrides, defaults=defaults, options=options)


def _open_platform(
    name: str,
    environment: Environment,
    store: Store,
    overrides: Sequence[str],
    rollout: Rollout,
    log: Callable[[str], None],
    needs_image: bool,
    server: RunningServer = DEFAULT_SERVER,
) -> ServingPlatform:
    models = open_store(store)

    def serving(number: int | None) -> dict[str, Any]:
        manifest = None if number is None else models.manifest(name, number)
        section = load_recorded_section("serving", Serving, overrides, manifest)
        # an older image of the server may not know the unset keys
        return section.model_dump(mode="json", exclude_unset=True)

    target = environment.target(needs_image)
    server_store = (environment.for_pods(store) if environment.on_cluster else store).to_json()
    return open_platform(PlatformConfig(name, models, target, server_store, serving, rollout, log, server))
