"""A small model in a store, and server processes."""

import json
import os
import re
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from modelyard.components.artifacts import ImageFormat, Signature
from modelyard.components.serve.settings import Serving
from modelyard.components.store.models import ModelStore, open_store
from modelyard.components.store.settings import Store
from tests.onnx_models import save_mean_model
from tests.versions import classifier_signature, publish, regressor_signature

NAME = "tiny"
CLASSES = ("dark", "bright")


def rename_input(signature: Signature) -> Signature:
    """Return the signature with `pixels` as the name of the input."""
    return signature.model_copy(update={"inputs": (signature.input.model_copy(update={"name": "pixels"}),)})


IMAGE_SIGNATURE = rename_input(
    classifier_signature(
        (4, 4, 3), "uint8", CLASSES, ImageFormat(height=4, width=4, channels=3, resize="stretch")
    )
)
NUMBER_SIGNATURE = rename_input(classifier_signature((3, 2), "float32", CLASSES))
REGRESSION_SIGNATURE = regressor_signature((3,), ("price",))


@dataclass
class TinyModel:
    """The model `tiny` in a store; `publish` adds a version and promotes it."""

    settings: Store
    models: ModelStore
    scratch: Path

    def publish(
        self,
        signature: Signature = IMAGE_SIGNATURE,
        prediction: tuple[float, ...] | None = None,
        promote: bool = True,
        make: Callable[[Path], None] | None = None,
    ) -> int:
        path = self.scratch / f"{len(self.models.versions(NAME))}.onnx"
        if make:
            make(path)
        else:
            save_mean_model(path, signature, prediction)
        version = publish(self.models, NAME, {"model.onnx": path}, signature)
        if promote:
            self.models.promote(NAME, version, reason="test", by="test")
        return version

    def file(self, version: int, name: str = "model.onnx") -> Path:
        return Path(self.settings.url) / NAME / "versions" / f"{version:06d}" / name


@dataclass
class RunningServer:
    """A server process that is ready."""

    process: subprocess.Popen[str]
    ready: dict[str, Any]
    log: Path

    @property
    def url(self) -> str:
        return str(self.ready["url"])

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.partition("://")[2].split(":")
        return host, int(port)

    def predict(self, instances: Any, **options: Any) -> httpx.Response:
        path = f"{self.url}/v1/models/{NAME}:predict"
        return httpx.post(path, json={"instances": instances}, timeout=60, **options)

    def send_bytes(self, data: bytes, timeout: float = 60) -> bytes:
        """Send bytes on a new connection; return the response until it is closed."""
        with socket.create_connection(self.address, timeout) as connection:
            connection.sendall(data)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric over the series that have the labels."""
        lines = re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", httpx.get(f"{self.url}/metrics").text, re.M)
        expected = {f'{key}="{value}"' for key, value in labels.items()}
        return sum(float(value) for present, value in lines if expected <= set(present.split(",")))


def serve_command(tiny_model: TinyModel, serving: Serving, version: int | None = None) -> list[str]:
    command = [sys.executable, "-m", "modelyard.components.serve", "--name", NAME]
    command += ["--store", tiny_model.settings.to_json(), "--serving", serving.to_json()]
    return command + ([] if version is None else ["--version", str(version)])


@contextmanager
def start_server(
    tiny_model: TinyModel, version: int | None = None, before: Sequence[str] = (), **settings: Any
) -> Iterator[RunningServer]:
    """Run a server on a free port, with the prefix `before` of its command."""
    serving = Serving(**{"port": 0, "poll_interval": 0.05, **settings})
    log = tiny_model.scratch / f"server-{os.urandom(4).hex()}.log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [*before, *serve_command(tiny_model, serving, version)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        assert process.stdout
        readable, _, _ = select.select([process.stdout], [], [], 200)
        line = process.stdout.readline() if readable else ""
        assert line, f"the server did not start: {log.read_text()}"
        yield RunningServer(process, json.loads(line), log)
    finally:
        process.terminate()
        process.wait(120)
        process.stdout.close()


def create_tiny_model(folder: Path) -> TinyModel:
    settings = Store(url=str(folder / "store"))
    return TinyModel(settings, open_store(settings), folder)


@contextmanager
def start_shared_server(
    factory: pytest.TempPathFactory, signature: Signature, **settings: Any
) -> Iterator[RunningServer]:
    """Run a server that all tests share."""
    tiny_model = create_tiny_model(factory.mktemp("shared"))
    tiny_model.publish(signature)
    with start_server(tiny_model, **settings) as server:
        yield server


@pytest.fixture
def tiny_model(tmp_path: Path) -> TinyModel:
    return create_tiny_model(tmp_path)


@pytest.fixture
def start() -> Callable[..., Any]:
    return start_server


@pytest.fixture(scope="session")
def image_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of a uint8 image model with small limits."""
    with start_shared_server(
        tmp_path_factory, IMAGE_SIGNATURE, max_body_bytes=100_000, max_batch=8
    ) as server:
        yield server


@pytest.fixture(scope="session")
def short_timeout_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of the image model with a time-out of 1 s for requests."""
    with start_shared_server(tmp_path_factory, IMAGE_SIGNATURE, body_timeout=1.0) as server:
        yield server


@pytest.fixture(scope="session")
def default_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of the image model with the default limits."""
    with start_shared_server(tmp_path_factory, IMAGE_SIGNATURE) as server:
        yield server


@pytest.fixture(scope="session")
def number_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of a float32 model."""
    with start_shared_server(tmp_path_factory, NUMBER_SIGNATURE) as server:
        yield server


@pytest.fixture(scope="session")
def regression_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of a regression model."""
    with start_shared_server(tmp_path_factory, REGRESSION_SIGNATURE) as server:
        yield server
