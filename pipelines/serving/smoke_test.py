"""One prediction from a deployed server, over HTTP, as a client would request it."""

import json
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

from modelyard.components.artifacts import Golden, Prediction, read
from modelyard.components.deploy.platforms import local
from modelyard.components.errors import ClusterError, DeployError
from modelyard.components.problems import describe
from modelyard.components.store.models import open_store
from modelyard.components.store.settings import Store
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.environments.environment import Environment

if TYPE_CHECKING:
    import httpx

TIMEOUT = 30.0


def predict_locally(config: Config) -> Prediction | None:
    """Start a server with the champion, request one prediction, stop it; None when there is no champion.

    Raises:
        DeployError: the server does not start or does not answer.
    """
    if not open_store(config.store).champion(config.name):
        return None
    with local.running_server(
        config.name, config.store.text(), config.serving.model_dump(mode="json")
    ) as url:
        return predict_once(url, config.name, config.store)


def predict_on_cluster(name: str, store: Store, environment: Environment) -> Prediction | None:
    """Request one prediction from the model's server on a cluster; None when it cannot be reached from here.

    Raises:
        DeployError: the server does not answer.
    """
    from modelyard.pipelines.serving.server_url import find_server  # a run on a laptop needs no httpx

    with suppress(ClusterError):
        server = find_server(name, environment)
        return predict_once(server.url, name, store, server.transport)
    return None


def predict_once(
    url: str, name: str, store: Store, transport: "httpx.BaseTransport | None" = None
) -> Prediction | None:
    """Request one prediction from the server at `url`; None when the model has no champion.

    Args:
        url: of the server.
        name: the model's.
        store: where its versions are.
        transport: carries the request there, when it is a Service inside a cluster.

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
    post = partial(_post_through, transport) if transport else _post
    try:
        (values,) = post(f"{url}/v1/models/{name}:predict", {"instances": [instance]})["predictions"]
    except (OSError, KeyError, ValueError) as error:
        raise DeployError(
            f"The server of {name} at {url} did not answer a prediction: {error}. "
            f"`modelyard serve {name}` shows the log of such a server."
        ) from error
    shown = describe(manifest.signature.problem).show(manifest.signature.output.names, values)
    return Prediction(version=champion.version, answer=shown.answer, note=shown.note)


def _post(url: str, value: Any) -> Any:
    """Post JSON and return the JSON that comes back; the import of httpx takes longer than the request."""
    request = Request(url, json.dumps(value).encode(), {"Content-Type": "application/json"})  # noqa: S310
    with urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
        return json.load(answer)


def _post_through(transport: "httpx.BaseTransport", url: str, value: Any) -> Any:
    """Do the same through a transport."""
    import httpx

    try:
        with httpx.Client(transport=transport, timeout=TIMEOUT) as client:
            return client.post(url, json=value).raise_for_status().json()
    except httpx.HTTPError as error:
        raise OSError(str(error)) from error
