"""The start of a server, errors at the start, and the end of a server."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from modelyard.components.errors import ConfigError, DamagedError, NotFoundError, ServeError
from modelyard.components.records import Failure
from modelyard.components.serve.__main__ import main
from modelyard.components.step import TERMINATION_LOG_VARIABLE
from tests.processes import wait_until

IMAGE = np.zeros((4, 4, 3), int).tolist()
BODY = json.dumps({"instances": [IMAGE]}).encode()


def server_arguments(tiny_model: Any, *more: str, serving: str = '{"port": 0}') -> list[str]:
    return ["--name", "tiny", "--store", tiny_model.settings.to_json(), "--serving", serving, *more]


def check(kind: type[Any], phrases: tuple[str, ...], code: Any, out: str, err: str) -> None:
    """Check that a server ended with the exit code of an error, whose line contains the phrases."""
    assert (code, out) == (kind.exit_code, "")
    assert "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith(f"{kind.__name__}: ")
    for phrase in phrases:
        assert phrase in last


@pytest.fixture
def assert_start_fails(
    tiny_model: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Any:
    """Return a function that starts a server in this process and checks its error and its record."""
    monkeypatch.setenv(TERMINATION_LOG_VARIABLE, str(tmp_path / "termination-log"))

    def start(kind: type[Any], *phrases: str, more: tuple[str, ...] = (), **options: str) -> None:
        monkeypatch.setattr(sys, "argv", ["serve", *server_arguments(tiny_model, *more, **options)])
        with pytest.raises(SystemExit) as error:
            main()
        check(kind, phrases, error.value.code, *capsys.readouterr())
        record = Failure.parse((tmp_path / "termination-log").read_bytes())
        assert record
        assert (record.kind, record.exit_code) == (kind.__name__, kind.exit_code)

    return start


def test_a_missing_model_is_an_error(tiny_model):
    command = [sys.executable, "-m", "modelyard.components.serve", *server_arguments(tiny_model)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    phrases = ("There is no model tiny", "models: none")
    check(NotFoundError, phrases, result.returncode, result.stdout, result.stderr)


def test_a_missing_version_is_an_error(tiny_model, assert_start_fails):
    tiny_model.publish()
    assert_start_fails(NotFoundError, "tiny has no version 9", more=("--version", "9"))


def test_a_port_in_use_is_an_error(tiny_model, assert_start_fails):
    tiny_model.publish()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert_start_fails(
            ServeError, f"port {port} of 127.0.0.1", "serving.port", serving=f'{{"port": {port}}}'
        )


def test_an_address_of_another_machine_is_an_error(tiny_model, assert_start_fails):
    tiny_model.publish()
    assert_start_fails(ServeError, "192.0.2.1", "serving.host", serving='{"port": 0, "host": "192.0.2.1"}')


def test_invalid_settings_are_errors(assert_start_fails):
    assert_start_fails(ConfigError, "max_bodies", serving='{"max_bodies": 3}')
    assert_start_fails(ConfigError, "port", serving='{"port": "x"}')


def test_a_server_with_a_changed_file_does_not_start(tiny_model, assert_start_fails):
    version = tiny_model.publish()
    file = tiny_model.file(version)
    file.chmod(0o644)
    file.write_bytes(file.read_bytes() + b"x")
    assert_start_fails(DamagedError, "model.onnx", "SHA-256")


def test_a_server_with_a_changed_manifest_does_not_start(tiny_model, assert_start_fails):
    file = tiny_model.file(tiny_model.publish(), "manifest.json")
    file.chmod(0o644)
    file.write_text(file.read_text() + " ")
    assert_start_fails(DamagedError, "manifest.json")


def accepts_connections(server: Any) -> bool:
    try:
        socket.create_connection(server.address, 60).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_ends_with_0(tiny_model, start, signal_number):
    tiny_model.publish()
    with start(tiny_model) as server:
        head = b"POST /v1/models/tiny:predict HTTP/1.1\r\nhost: tiny\r\n"
        with (
            socket.create_connection(server.address, 60) as connection,
            httpx.Client(base_url=server.url) as idle_client,
        ):
            connection.sendall(head + b"content-length: %d\r\n\r\n" % len(BODY) + BODY[:20])
            assert idle_client.get("/v2/health/ready").status_code == 200
            server.process.send_signal(signal_number)
            wait_until(lambda: not accepts_connections(server))  # the request in progress continues
            assert server.process.poll() is None
            connection.sendall(BODY[20:])
            response = b"".join(iter(lambda: connection.recv(65536), b""))
        assert response.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in response
        assert b"predictions" in response
        assert server.process.wait(60) == 0
        assert "Traceback" not in server.log.read_text()


def test_an_incomplete_request_does_not_delay_the_exit(tiny_model, start):
    tiny_model.publish()
    with (
        start(tiny_model, drain_timeout=0.5, body_timeout=60.0) as server,
        socket.create_connection(server.address) as connection,
    ):
        head = b"POST /v1/models/tiny:predict HTTP/1.1\r\nhost: tiny\r\nexpect: 100-continue\r\n"
        connection.sendall(head + b"content-length: 9\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 100")  # the server waits for the body
        server.process.terminate()
        assert server.process.wait(60) == 0


def test_another_digest_is_an_error(tiny_model, assert_start_fails):
    version = str(tiny_model.publish())
    assert_start_fails(DamagedError, "manifest.json", more=("--version", version, "--digest", "0" * 64))


def test_a_server_prints_its_url_and_lingers_after_sigterm(tiny_model, start):
    tiny_model.publish()
    version = tiny_model.publish()
    with start(tiny_model, linger=60.0) as server, httpx.Client(base_url=server.url) as client:
        ready_line = {"event": "ready", "name": "tiny", "version": version, "url": server.url}
        assert server.ready == ready_line
        assert client.get("/v2/health/live").status_code == 200
        assert client.get("/v2/health/ready").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        wait_until(
            lambda: client.get("/v2/health/ready").status_code == 503, message="the server remains ready"
        )
        response = server.predict([IMAGE])  # on a new connection
        assert response.status_code == 200
        assert response.headers["connection"] == "close"
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0, "a second signal does not wait"
