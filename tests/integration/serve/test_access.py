"""Tokens, TLS, browsers of other sites, the access log and trace context, on real servers."""

import json
import os
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import numpy as np
import onnx
import pytest

from modelyard.components.deploy.platforms.local import running_server
from modelyard.components.errors import ConfigError
from modelyard.components.serve.access import Access, AccessLog, trace_headers
from modelyard.components.serve.settings import Serving
from modelyard.components.server import TOKEN_HEADER, predict_one
from tests.access import make_certificate, write_private
from tests.integration.serve.conftest import IMAGE_SIGNATURE, NAME, create_tiny_model, start_server
from tests.onnx_models import save_mean_model
from tests.processes import wait_until

BODY = {"instances": [np.full((4, 4, 3), 255).tolist()]}
PREDICT, METADATA = f"/v1/models/{NAME}:predict", f"/v2/models/{NAME}"
OLD, NEW = "old-token.1~", "bmV3+/=="
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    write_private(path, f"{OLD}\n")
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tokens: Path) -> Iterator[Any]:
    """A server with a token and an access log; `lines` has the lines of the log."""
    tiny_model = create_tiny_model(tmp_path_factory.mktemp("model"))
    tiny_model.publish(IMAGE_SIGNATURE)
    with start_server(tiny_model, token_file=str(tokens), access_log=True) as server:
        server.lines = []
        reader = Thread(target=lambda: server.lines.extend(server.process.stdout), daemon=True)
        reader.start()
        yield server


@pytest.fixture(scope="module")
def client(server: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture
def lines(server: Any, client: httpx.Client) -> Any:
    """Return a function that returns the lines of the access log since its last call."""

    def read() -> list[dict[str, Any]]:
        end = f"/end-{os.urandom(4).hex()}"
        client.get(end)
        wait_until(lambda: end in "".join(server.lines[-1:]))
        entries = [json.loads(line) for line in server.lines[:-1]]
        server.lines.clear()
        return entries

    read()
    return read


def test_all_routes_except_health_and_the_page_need_the_token(client):
    for path in ("/", "/v2/health/live", "/v2/health/ready"):
        assert client.get(path).status_code == 200
    for path in ("/metrics", "/v2", METADATA, f"{METADATA}/ready", f"/v1/models/{NAME}"):
        response = client.get(path)
        assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
        assert NAME not in response.text
        assert client.get(path, headers=bearer(OLD)).status_code == 200
    assert client.post(PREDICT, json=BODY).status_code == 401
    assert client.post(PREDICT, content=b" " * 2_000_000).status_code == 401
    for headers in (bearer(OLD), {"authorization": f"bearer  {OLD}"}, {TOKEN_HEADER: OLD}):
        assert client.post(PREDICT, json=BODY, headers=headers).json() == {"predictions": [[0, 1]]}
    for invalid in (bearer(OLD + "x"), bearer(OLD[:-1]), {TOKEN_HEADER: ""}, bearer("é")):
        response = client.post(
            PREDICT, json=BODY, headers=[(name, value.encode()) for name, value in invalid.items()]
        )
        assert response.status_code == 401
        assert 'error="invalid_token"' in response.headers["www-authenticate"]
    assert client.get("/metrics", headers={"authorization": f"Basic {OLD}"}).status_code == 401
    assert client.get("/nothing").status_code == 404


def test_tokens_are_replaced_without_a_failed_request(server, client, tokens):
    def status(token: str) -> int:
        return client.post(PREDICT, json=BODY, headers=bearer(token)).status_code

    folder = tokens.parent / "data-2"  # Kubernetes updates a mounted Secret by replacing a link
    folder.mkdir()
    write_private(folder / "tokens", f"\n{OLD}\r\n{NEW}")
    (tokens.parent / "link").symlink_to(folder / "tokens")
    (tokens.parent / "link").rename(tokens)
    while status(NEW) != 200:
        assert status(OLD) == 200
    write_private(tokens, NEW)
    while status(OLD) != 401:
        assert status(NEW) == 200
    for number, (text, mode) in enumerate([("", 0o600), ("two words", 0o600), (OLD, 0o644)], 1):
        write_private(tokens, text, mode)
        while server.log.read_text().count("remains in use") < number:
            assert status(NEW) == 200
    assert status(NEW) == 200
    assert "two words" not in server.log.read_text()
    write_private(tokens, OLD)
    while status(OLD) != 200:
        assert status(NEW) in (200, 401)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "cross-site", "origin": "https://evil.example"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": "https://evil.example", "content-type": "text/plain"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "same-origin", "origin": "https://models.example"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"origin": "http://HOST"}, 200),
        ({"content-type": "text/plain"}, 200),
    ],
)
def test_cross_site_predictions_get_403(server, client, headers, status):
    host = server.url.removeprefix("http://")
    headers = {key: value.replace("HOST", host) for key, value in headers.items()}
    for path, body in ((PREDICT, BODY), (f"{METADATA}/infer", {})):
        response = client.post(path, json=body, headers={**bearer(OLD), **headers})
        assert (response.status_code == 403) is (status == 403)
        assert not [name for name in response.headers if name.startswith("access-control")]


def test_a_preflight_request_gets_405(client):
    headers = {"origin": "https://a.example", "access-control-request-method": "POST"}
    response = client.options(PREDICT, headers=headers)
    assert response.status_code == 405
    assert not [name for name in response.headers if name.startswith("access-control")]


def test_the_access_log_has_each_request_and_no_secret(server, client, lines):
    headers = {**bearer(OLD), "traceparent": TRACE, "tracestate": "a=1"}
    response = client.post(f"{PREDICT}?key=secret", json=BODY, headers=headers)
    assert (response.headers["traceparent"], response.headers["tracestate"]) == (TRACE, "a=1")
    client.post("/v1/models/%22%0a%7b%7d%c3%a9:predict", json=BODY)
    with socket.create_connection(server.address) as connection:
        connection.sendall(b"secret\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 400"
    with socket.create_connection(server.address) as connection:
        connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nhost: a\r\n{TOKEN_HEADER}: {OLD}\r\n".encode())
        connection.sendall(b"transfer-encoding: chunked\r\n\r\nsecret")
        assert connection.recv(12) == b"HTTP/1.1 400"
    first, second, third, fourth = lines()
    message = {"event": "request", "client": "127.0.0.1", "method": "POST", "path": PREDICT, "status": 200}
    assert message.items() <= first.items()
    assert first["bytes"] == len(response.content)
    assert (first["version"], first["trace_id"]) == (1, TRACE[3:35])
    assert datetime.fromisoformat(first["time"]).tzinfo is UTC
    assert first["seconds"] > 0
    assert (second["path"], second["status"], second["trace_id"]) == ('/v1/models/"\n{}é:predict', 401, None)
    assert (third["path"], third["status"]) == (None, 400)
    assert (fourth["path"], fourth["status"]) == (PREDICT, 400)
    assert all(word not in str((first, second, third, fourth)) for word in (OLD, "secret", "255"))


def test_a_full_pipe_drops_lines_of_the_access_log():
    reading, writing = os.pipe()
    written, log = 1000, AccessLog(writing)
    for _ in range(written):
        log.write({"path": "/é" * 1000}, 200, 1, 0.0, 1, ())
    received = os.read(reading, 2**20).splitlines()
    log.write({}, 200, 1, 0.0, 1, ())
    assert json.loads(os.read(reading, 2**20))["dropped"] == written - len(received) > 0


@pytest.mark.parametrize(
    "parent",
    [
        TRACE.upper(),
        TRACE.replace("00-", "ff-", 1),
        f"{TRACE}-more",
        TRACE[:-1],
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01",
        "",
    ],
)
def test_an_invalid_trace_context_is_ignored(parent):
    assert trace_headers([(b"traceparent", parent.encode()), (b"tracestate", b"a=1")]) == ()
    assert trace_headers([(b"traceparent", TRACE.encode())] * 2) == ()


def test_a_valid_trace_context_is_returned():
    parent = (b"traceparent", TRACE.encode())
    later = TRACE.replace("00-", "cc-", 1).encode()
    assert trace_headers([(b"traceparent", later + b"-extra")]) == (parent,)
    assert trace_headers([(b"traceparent", later)]) == (parent,)
    states = [(b"tracestate", b"a=1, b@c=x y"), (b"tracestate", b",d=2")]
    assert trace_headers([*states, parent]) == (parent, (b"tracestate", b"a=1,b@c=x y,d=2"))
    for invalid in (
        b"a",
        b"a=1,\xe9=2",
        b"A=1",
        b"a=1=2",
        b",".join(b"k%d=1" % number for number in range(33)),
    ):
        assert trace_headers([parent, (b"tracestate", invalid)]) == (parent,)


@pytest.mark.parametrize(
    ("mode", "text", "message"),
    [
        (None, "", "cannot be read"),
        (0o600, " \n", "no token"),
        (0o600, "x\nsecret \u00e9", "Line 2"),
        (0o644, "x", "chmod o-rwx"),
    ],
)
def test_an_invalid_token_file_is_refused(tmp_path, mode, text, message):
    path = tmp_path / "tokens"
    if mode:
        path.write_text(text)
        path.chmod(mode)
    with pytest.raises(ConfigError, match=message) as refused:
        Access(Serving(token_file=str(path)))
    assert "secret" not in str(refused.value)


def test_an_invalid_certificate_is_refused(tmp_path):
    certificate, key = make_certificate()
    files = {"tls_cert": str(tmp_path / "crt"), "tls_key": str(tmp_path / "key")}
    for other in (b"", make_certificate()[1]):
        (tmp_path / "crt").write_bytes(certificate)
        write_private(tmp_path / "key", other)
        with pytest.raises(ConfigError, match=r"serving\.tls_cert is .* which cannot be loaded"):
            Access(Serving(**files))
    write_private(tmp_path / "key", key)
    Access(Serving(**files))
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(ConfigError, match=r"serving\.tls_key"):
        Access(Serving(**files))
    os.mkfifo(tmp_path / "fifo", 0o600)
    for name in ("token_file", *files):
        with pytest.raises(ConfigError, match=rf"serving\.{name}.*not a regular file"):
            Access(
                Serving(
                    **{"tls_cert": str(tmp_path / "crt"), "tls_key": str(tmp_path / "key")}
                    | {name: str(tmp_path / "fifo")}
                )
            )


def write_fragile_model(path: Path) -> None:
    """Write a model that fails for inputs other than zeros."""
    save_mean_model(path, IMAGE_SIGNATURE)
    model, node = onnx.load(path), onnx.helper.make_node
    guard = [
        node("ReduceMax", ["floats"], ["largest"], keepdims=0),
        node("Cast", ["largest"], ["index"], to=onnx.TensorProto.INT64),
        node("Gather", ["table", "index"], ["factor"]),
        node("Mul", ["floats", "factor"], ["checked"]),
    ]
    first, *others = model.graph.node
    others[0].input[0] = "checked"
    nodes = [first, *guard, *others]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(1, np.float32), "table"))
    onnx.save(model, path)


def test_tls_uses_a_new_certificate_without_a_failed_request(tiny_model, start, tmp_path):
    def write(certificate: bytes, key: bytes) -> None:
        write_private(tmp_path / "key", key)
        write_private(tmp_path / "crt", certificate)

    def presented_certificate(name: str | None) -> str:
        context = ssl.create_default_context(cadata=(first[0] + second[0]).decode())
        context.check_hostname = name is not None
        with (
            socket.create_connection(address) as plain,
            context.wrap_socket(plain, server_hostname=name) as tls,
        ):
            assert tls.version() == "TLSv1.3"
            return ssl.DER_cert_to_PEM_cert(tls.getpeercert(binary_form=True))

    first, second = make_certificate(), make_certificate()
    write(*first)
    tiny_model.publish()
    with start(
        tiny_model, tls_cert=str(tmp_path / "crt"), tls_key=str(tmp_path / "key"), body_timeout=1.0
    ) as server:
        assert server.url.startswith("https://127.0.0.1:")
        address = server.address
        trusted = ssl.create_default_context(cadata=first[0].decode())
        with httpx.Client(base_url=server.url, verify=trusted) as client:
            assert client.post(PREDICT, json=BODY).json() == {"predictions": [[0, 1]]}
            assert presented_certificate(None) == first[0].decode()
            write_private(tmp_path / "key", second[1])  # the new key does not match the old certificate
            while "remains in use" not in server.log.read_text():
                assert presented_certificate("localhost") == first[0].decode()
            write(*second)
            while presented_certificate(None) != second[0].decode():
                pass
            assert presented_certificate("localhost") == second[0].decode()
            assert client.post(PREDICT, json=BODY).status_code == 200, "an open connection fails"
            tiny_model.publish(make=write_fragile_model)
            while client.post(PREDICT, json=BODY, headers={"traceparent": TRACE}).status_code != 500:
                pass
            assert f"failed in trace {TRACE[3:35]}\n" in server.log.read_text()
        with socket.create_connection(address) as plain:  # a request without TLS
            plain.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: a\r\n\r\n")
            assert not plain.recv(9).startswith(b"HTTP")
        with socket.create_connection(address, timeout=30) as silent:  # no handshake within body_timeout
            assert silent.recv(1) == b""
        context = ssl.create_default_context(cadata=second[0].decode())
        with context.wrap_socket(socket.create_connection(address), server_hostname="localhost") as tls:
            tls.sendall(b"POST / HTTP/1.1\r\nhost: a\r\n")
            assert tls.recv(12) == b"HTTP/1.1 408"
        with context.wrap_socket(socket.create_connection(address), server_hostname="localhost") as tls:
            head = f"POST {PREDICT} HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n"
            tls.sendall(head.encode())
            tls.unwrap().close()
        server.process.terminate()
        assert server.process.wait(60) == 0
        assert "has no effect" not in server.log.read_text()


def test_a_local_verification_server_is_called_with_its_token(tiny_model, tokens, tmp_path):
    tiny_model.publish()
    certificate, key = make_certificate()
    files = {
        "tls_cert": write_private(tmp_path / "crt", certificate),
        "tls_key": write_private(tmp_path / "key", key),
    }
    with running_server(NAME, tiny_model.settings.to_json(), {**files, "token_file": str(tokens)}) as server:
        assert server.url.startswith("https:")
        assert predict_one(server, NAME, BODY["instances"][0]) == [0, 1]
