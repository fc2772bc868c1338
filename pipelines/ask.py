"""Ask the deployed server for a prediction, over HTTP, as a client would."""

import tempfile
from pathlib import Path

import httpx

from components.artifacts import Golden, read
from components.deploy import server
from components.errors import DeployError
from components.store.models import open_store
from pipelines.config import Config
from pipelines.runs import Prediction


def ask(config: Config) -> Prediction | None:
    """Start the server on the champion, ask for one prediction, stop it; None when there is no champion.

    Raises:
        DeployError: the server does not start or does not answer.
    """
    models = open_store(config.store)
    if not (champion := models.champion(config.name)):
        return None
    with tempfile.TemporaryDirectory() as scratch:
        version = Path(scratch) / "version"
        manifest = models.fetch(config.name, champion.version, version, only=["golden.json"])
        instance = read(version / "golden.json", Golden).instances[0]
    with server.running(config.name, config.store.text(), config.serving.text()) as url:
        try:
            response = httpx.post(
                f"{url}/v1/models/{config.name}:predict", json={"instances": [instance]}, timeout=30
            )
            (probabilities,) = response.raise_for_status().json()["predictions"]
        except (httpx.HTTPError, KeyError, ValueError) as error:
            raise DeployError(
                f"The server of {config.name} started but did not answer a prediction: {error}. "
                f"`modelyard serve {config.name}` shows its log."
            ) from error
    best = max(range(len(probabilities)), key=probabilities.__getitem__)
    return Prediction(
        version=champion.version, label=manifest.signature.classes[best], probability=probabilities[best]
    )
