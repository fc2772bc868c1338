"""The limits of the server: a request above a limit gets its status, and the server continues to serve."""

import base64
import io
import json
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import numpy as np
import pytest
from PIL import Image

from modelyard.components.resources import read_cpu_limit
from tests.processes import wait_until

WHITE = np.full((4, 4, 3), 255).tolist()
BODY = json.dumps({"instances": [WHITE]}).encode()
WORKERS = read_cpu_limit()
HEAD = b"POST /v1/models/tiny:predict HTTP/1.1\r\nhost: tiny\r\n"


def status(reply: bytes) -> int:
    return int(reply.split(b" ", 2)[1])


def error(reply: bytes) -> str:
    return str(json.loads(reply.partition(b"\r\n\r\n")[2])["error"])


@pytest.fixture(autouse=True)
def _server_continues_to_serve(request):
    servers = [
        request.getfixturevalue(name)
        for name in ("image_server", "short_timeout_server")
        if name in request.fixturenames
    ]
    yield
    for server in servers:
        assert server.predict([WHITE]).json() == {"predictions": [[0, 1]]}


def test_an_incomplete_request_gets_408(short_timeout_server):
    incomplete = [
        (HEAD + b"content-length: 1000\r\n\r\n" + BODY[:10], "body"),
        (HEAD + b"content-length: 1000\r\n\r\n", "body"),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\n{", "body"),
        (HEAD + b"content-len", "head"),
        (b"P", "head"),
    ]
    before = short_timeout_server.metric("modelyard_requests_total", code="408")
    with ThreadPoolExecutor(len(incomplete)) as threads:
        responses = list(threads.map(short_timeout_server.send_bytes, (data for data, _ in incomplete)))
    for reply, (_, part) in zip(responses, incomplete, strict=True):
        assert status(reply) == 408
        assert part in error(reply)
    metric = partial(short_timeout_server.metric, "modelyard_requests_total", code="408")
    wait_until(lambda: metric() >= before + 3)
    assert metric() == before + 3  # requests with a complete head


def test_a_silent_connection_is_closed(short_timeout_server):
    assert short_timeout_server.send_bytes(b"") == b""


def test_an_incomplete_second_request_gets_408(short_timeout_server):
    complete = HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
    reply = short_timeout_server.send_bytes(complete + HEAD + b"content-length: 1000\r\n\r\n{")
    assert status(reply) == 200
    assert b"HTTP/1.1 408" in reply


def test_a_client_that_disconnects_during_its_request_is_not_an_error(image_server):
    before = image_server.metric("modelyard_requests_total", code="499")
    with socket.create_connection(image_server.address) as connection:
        connection.sendall(HEAD + b"content-length: 1000\r\n\r\n{")
    assert image_server.predict([WHITE]).status_code == 200
    wait_until(lambda: image_server.metric("modelyard_requests_total", code="499") > before)
    assert image_server.metric("modelyard_requests_in_progress") == 0
    assert "Traceback" not in image_server.log.read_text()


def test_a_body_over_the_limit_gets_413_without_being_read(image_server):
    with socket.create_connection(image_server.address, 60) as connection:
        connection.sendall(HEAD + b"content-length: 99999999999\r\n\r\n")
        reply = b"".join(iter(lambda: connection.recv(65536), b""))
    assert status(reply) == 413
    assert "99999999999" in error(reply)
    assert "100000" in error(reply)


def test_a_chunked_body_over_the_limit_gets_413(image_server):
    chunks = (b" " * 10_000 for _ in range(20))
    response = httpx.post(f"{image_server.url}/v1/models/tiny:predict", content=chunks)
    assert response.status_code == 413
    assert "100000" in response.json()["error"]


def test_a_large_body_that_is_refused_keeps_the_connection_open(image_server):
    with httpx.Client() as client:
        url = f"{image_server.url}/v1/models/tiny:predict"
        assert client.post(url, content=b" " * 2_000_000).status_code == 413
        assert client.post(url, json={"instances": [WHITE]}).status_code == 200


def test_a_request_without_a_length_gets_411(image_server):
    reply = image_server.send_bytes(HEAD + b"connection: close\r\n\r\n")
    assert status(reply) == 411


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"HELLO\r\n\r\n",
        HEAD + b"content-length: x\r\n\r\n",
        HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_invalid_http_gets_400(image_server, data):
    reply = image_server.send_bytes(data)
    assert status(reply) == 400
    assert error(reply)


def test_too_many_headers_get_431(image_server):
    with socket.create_connection(image_server.address, 60) as connection:
        connection.sendall(HEAD + b"x: y\r\n" * 10_900)
        time.sleep(0.2)
        connection.sendall(b"x: y\r\n" * 20)
        reply = b"".join(iter(lambda: connection.recv(65536), b""))
    assert status(reply) == 431
    assert "65536" in error(reply)


def test_stalled_uploads_do_not_block_other_requests(tiny_model, start):
    tiny_model.publish()
    with start(tiny_model, max_queue=2) as server:
        connections = []
        for _ in range(20):
            connection = socket.create_connection(server.address)
            connection.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(BODY))
            connections.append(connection)
        assert server.predict([WHITE]).status_code == 200
        for connection in connections:
            connection.sendall(BODY)
            assert status(connection.recv(65536)) == 200
            connection.close()


@pytest.fixture(scope="module")
def slow_body():
    """The body of a request with large images, which takes about a second."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize((3900, 3900)).save(file, "PNG")
    return json.dumps({"instances": [{"b64": base64.b64encode(file.getvalue()).decode()}] * 4}).encode()


def send_slow_requests(server, slow_body, threads, count):
    """Send slow requests; return them after the server executes or queues them."""
    post = partial(httpx.post, f"{server.url}/v1/models/tiny:predict", content=slow_body, timeout=60)
    requests = [threads.submit(post) for _ in range(count)]
    in_progress = partial(server.metric, "modelyard_requests_in_progress")
    wait_until(lambda: in_progress() >= count or any(request.done() for request in requests))
    return requests


def test_a_full_queue_gets_503_with_retry_after(tiny_model, start, slow_body):
    tiny_model.publish()
    with start(tiny_model, max_queue=2) as server, ThreadPoolExecutor(2) as threads:
        requests = send_slow_requests(server, slow_body, threads, 2)
        response = server.predict([WHITE])
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert httpx.get(f"{server.url}/v2/health/ready").status_code == 200
        assert [request.result().status_code for request in requests] == [200, 200]
        assert server.predict([WHITE]).status_code == 200
        assert server.metric("modelyard_requests_total", code="503") == 1


def test_late_and_abandoned_requests_are_not_executed(tiny_model, start, slow_body):
    tiny_model.publish()
    with start(tiny_model) as server, ThreadPoolExecutor(4 * WORKERS) as threads:
        requests = send_slow_requests(server, slow_body, threads, 4 * WORKERS)
        with socket.create_connection(server.address) as connection:
            connection.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(slow_body) + slow_body)
        late = httpx.post(
            f"{server.url}/v1/models/tiny:predict",
            content=slow_body,
            headers={"x-request-timeout": "0.001"},
            timeout=60,
        )
        assert late.status_code == 504
        assert {request.result().status_code for request in requests} == {200}
        assert server.metric("modelyard_request_seconds_count") == len(requests)
        assert server.metric("modelyard_requests_total", code="499") == 1


def test_an_invalid_timeout_gets_400(image_server):
    assert image_server.predict([WHITE], headers={"x-request-timeout": "soon"}).status_code == 400


def test_requests_beyond_the_drain_timeout_get_503(tiny_model, start, slow_body):
    tiny_model.publish()
    with start(tiny_model, drain_timeout=0.2) as server, ThreadPoolExecutor(8) as threads:
        requests = send_slow_requests(server, slow_body, threads, 8)
        server.process.terminate()
        responses = [request.result() for request in requests]
        assert server.process.wait(30) == 0
    assert {reply.status_code for reply in responses} <= {200, 503}
    (late,) = {reply.text for reply in responses if reply.status_code == 503}
    assert "send the request again" in json.loads(late)["error"]
    assert "Traceback" not in server.log.read_text()


def test_sighup_does_not_end_the_server(image_server):
    image_server.process.send_signal(signal.SIGHUP)
    assert image_server.predict([WHITE]).status_code == 200
