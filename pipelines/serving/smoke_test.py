"""One prediction by a deployed server over HTTP, as for a client."""

from contextlib import suppress

from modelyard.components.artifacts import Golden, Prediction
from modelyard.components.deploy.platforms import local
from modelyard.components.errors import ClusterError, DeployError, ServeError
from modelyard.components.problems import get_description
from modelyard.components.server import NoServerError, Server, predict_one
from modelyard.components.store.models import open_store
from modelyard.components.store.settings import Store
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.environments.environment import Environment


def predict_locally(config: Config) -> Prediction | None:
    """Start a server with the champion, request a prediction and stop the server; None without a champion."""
    if not open_store(config.store).champion(config.name):
        return None
    with local.running_server(
        config.name, config.store.to_json(), config.serving.model_dump(mode="json")
    ) as server:
        return predict_once(server, config.name, config.store)


def predict_on_cluster(name: str, store: Store, environment: Environment) -> Prediction | None:
    """Request a prediction from the model's server on a cluster; None if this machine cannot reach it."""
    from modelyard.pipelines.serving.platforms import find_server  # not needed locally

    with suppress(ClusterError):
        return predict_once(find_server(name, environment), name, store)
    return None


def predict_once(server: Server, name: str, store: Store) -> Prediction | None:
    """Request a prediction for the first golden request from a server; None without a champion.

    Raises:
        DeployError: the server does not respond.
        ClusterError: the cluster has no such server or does not respond.
    """
    models = open_store(store)
    if not (champion := models.champion(name)):
        return None
    manifest, golden = models.read_record(name, champion.version, "golden.json", Golden)
    try:
        values = predict_one(server, name, golden.instances[0])
    except NoServerError:
        raise
    except ServeError as error:
        raise DeployError(f"{error} Run `modelyard serve {name}` to see the server's log.") from error
    display = get_description(manifest.signature.problem).format_prediction(
        manifest.signature.output.names, values
    )
    return Prediction(version=champion.version, text=display.text, note=display.note)
