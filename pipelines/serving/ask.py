"""Ask the deployed server for a prediction, over HTTP, as a client would."""

import tempfile
from pathlib import Path

import httpx

from modelyard.components.artifacts import Golden, read
from modelyard.components.deploy import server
from modelyard.components.errors import DeployError
from modelyard.components.store.models import open_store
from modelyard.components.store.settings import Store
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.runners.runs import Prediction


def ask(config: Config) -> Prediction | None:
    """Start the server on the champion, ask for one prediction, stop it; None when there is no champion.

    Raises:
        DeployError: the server does not start or does not answer.
    """
    if not open_store(config.store).champion(config.name):
        return None
    with server.running(config.name, config.store.text(), config.serving.text()) as url:
        return ask_at(url, config.name, config.store)


def ask_at(
    url: str, name: str, store: Store, transport: httpx.BaseTransport | None = None
) -> Prediction | None:
    """Ask the server at `url` for one prediction; None when the model has no champion.

    Args:
        url: of the server.
        name: the model's.
        store: where its versions are.
        transport: takes the request there; httpx's own when None.

    Raises:
        DeployError: it does not answer.
        ClusterError: it is in a cluster that does not lead to it.
    """
    models = open_store(store)
    if not (champion := models.champion(name)):
        return None
    with tempfile.TemporaryDirectory() as scratch:
        version = Path(scratch) / "version"
        manifest = models.fetch(name, champion.version, version, only=["golden.json"])
        instance = read(version / "golden.json", Golden).instances[0]
    try:
        with httpx.Client(transport=transport, timeout=30) as client:
            response = client.post(f"{url}/v1/models/{name}:predict", json={"instances": [instance]})
        (probabilities,) = response.raise_for_status().json()["predictions"]
    except (httpx.HTTPError, KeyError, ValueError) as error:
        raise DeployError(
            f"The server of {name} at {url} did not answer a prediction: {error}. "
            f"`modelyard serve {name}` shows what a server of it says."
        ) from error
    best = max(range(len(probabilities)), key=probabilities.__getitem__)
    return Prediction(
        version=champion.version, label=manifest.signature.classes[best], probability=probabilities[best]
    )
