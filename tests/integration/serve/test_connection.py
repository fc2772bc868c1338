"""Malicious and unusual HTTP clients. Run these tests with a new version of uvicorn or httptools."""

import asyncio
import json
import random
import re
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import pytest
import uvicorn
from uvicorn.server import ServerState

from modelyard.components.serve.connection import connection_class

WHITE = np.full((4, 4, 3), 255).tolist()
BODY = json.dumps({"instances": [WHITE]}).encode()
PREDICTION = {"predictions": [[0, 1]]}
POST = b"POST /v1/models/tiny:predict HTTP/1.1\r\nhost: tiny\r\n"
LENGTH = b"content-length: %d\r\n" % len(BODY)
H2C = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"
WEBSOCKET = b"connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: a\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"
LIVE = b"GET /v2/health/live HTTP/1.1\r\nhost: tiny\r\n"
LAST = LIVE + b"connection: close\r\n\r\n"


def statuses(response: bytes) -> list[int]:
    return [int(part[:3]) for part in response.split(b"HTTP/1.1 ")[1:]]


def exchange(server, *parts: bytes, half_close: bool = False) -> bytes:
    """Send the parts with pauses and return the responses until the connection is closed."""
    with socket.create_connection(server.address, 60) as connection:
        for number, part in enumerate(parts):
            time.sleep(0.02 if number else 0)
            connection.sendall(part)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        return receive_all(connection)


def receive_all(connection: socket.socket) -> bytes:
    response = b""
    connection.settimeout(60)
    with suppress(ConnectionResetError):
        while part := connection.recv(65536):
            response += part
    return response


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)


@pytest.mark.parametrize("offer", [H2C, WEBSOCKET, b"upgrade: h2c\r\n"])
@pytest.mark.parametrize(
    ("head", "body"), [(LENGTH, BODY), (CHUNKED, chunked(BODY))], ids=["length", "chunked"]
)
def test_a_request_to_upgrade_keeps_its_body(image_server, offer, head, body):
    request = POST + offer + head + b"\r\n"
    for parts in ([request + body + LAST], [request, body, LAST], [request + body + request + body + LAST]):
        response = exchange(image_server, *parts)
        assert statuses(response)[0] == 200
        assert json.loads(response.split(b"\r\n\r\n")[1][: len(b'{"predictions":[[0,1]]}')]) == PREDICTION
        assert set(statuses(response)) == {200}


@pytest.mark.parametrize("pause", [False, True])
def test_a_body_that_looks_like_a_request_is_not_a_request(image_server, pause):
    inner = LIVE + b"\r\n"
    head = POST + H2C + b"content-length: %d\r\n\r\n" % len(inner)
    response = exchange(image_server, *([head, inner + LAST] if pause else [head + inner + LAST]))
    assert statuses(response) == [400, 200]


def test_a_request_without_host_is_refused(image_server):
    response = exchange(image_server, b"GET /v2/health/live HTTP/1.1\r\n\r\n", LAST)
    assert statuses(response) == [400, 200]
    assert statuses(exchange(image_server, b"GET /v2/health/live HTTP/1.0\r\n\r\n")) == [200]


def test_pipelined_requests_are_answered_in_order(image_server):
    requests = [LIVE + b"\r\n", LIVE.replace(b"GET /v2/health/live", b"GET /v2/models/none") + b"\r\n"]
    response = exchange(image_server, b"".join(requests * 500), LAST)
    assert statuses(response) == [200, 404] * 500 + [200]


def test_upgrade_without_a_body_keeps_the_connection_open(image_server):
    response = exchange(image_server, LIVE + H2C + b"\r\n", LAST)
    assert statuses(response) == [200, 200]


def test_requests_with_and_without_upgrade_have_the_same_response(image_server):
    rng = random.Random(7)  # noqa: S311
    bodies = [(LENGTH, BODY), (CHUNKED, chunked(BODY)), (b"content-length: 2\r\n", b"{}")]
    for _ in range(20):
        plain, upgrading = b"", b""
        for _ in range(rng.randint(1, 3)):
            head, body = rng.choice(bodies)
            plain += POST + head + b"\r\n" + body
            upgrading += POST + rng.choice([b"", H2C, WEBSOCKET]) + head + b"\r\n" + body
        cut = rng.randrange(len(upgrading))
        responses = (
            exchange(image_server, upgrading[:cut], upgrading[cut:] + LAST),
            exchange(image_server, plain + LAST),
        )
        assert len({re.sub(rb"date: .*\r\n", b"", response) for response in responses}) == 1


@pytest.mark.parametrize(
    ("start", "repeated"),
    [(b"2\r\n{}\r\n0\r\n", b"a: b\r\n" * 1000), (b"2\r\n{}\r\n0\r\n", b"x" * 6000), (b"2;", b"x" * 6000)],
    ids=["trailers", "one trailer", "extension of a chunk"],
)
def test_trailers_and_chunk_extensions_are_limited(image_server, start, repeated):
    with socket.create_connection(image_server.address, 10) as connection:
        connection.sendall(POST + CHUNKED + b"\r\n" + start)
        response = b""
        try:
            for _ in range(200):
                connection.sendall(repeated)
                time.sleep(0.001)
        except OSError:
            pass
        else:
            pytest.fail("The server accepted a megabyte.")
        response = receive_all(connection)
    assert statuses(response) in ([431], [400], [])  # a reset may lose the response
    assert image_server.predict([WHITE]).json() == PREDICTION


def test_chunks_of_single_bytes_are_accepted(image_server):
    pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY.ljust(20_000)) + b"0\r\n\r\n"
    response = exchange(image_server, POST + CHUNKED + b"connection: close\r\n\r\n" + pieces)
    assert statuses(response) == [200]


def test_trailers_are_ignored(image_server):
    trailers = b"0\r\nx-modelyard-golden: 1\r\n\r\n"
    before = image_server.metric("modelyard_requests_total", traffic='"golden"')
    body = b"%x\r\n%s\r\n" % (len(BODY), BODY)
    response = exchange(image_server, POST + CHUNKED + b"connection: close\r\n\r\n" + body + trailers)
    assert statuses(response) == [200]
    assert image_server.metric("modelyard_requests_total", traffic='"golden"') == before


def test_a_length_with_thousands_of_zeros_gets_400(image_server):
    response = exchange(
        image_server, POST + b"content-length: %s2\r\nconnection: close\r\n\r\n{}" % (b"0" * 5000)
    )
    assert statuses(response) == [400]


def test_a_half_closed_connection_gets_its_response(image_server):
    response = exchange(image_server, POST + LENGTH + b"\r\n" + BODY, half_close=True)
    assert statuses(response)[-1] == 200


def test_head_has_the_headers_of_get_and_no_body(image_server):
    response = exchange(
        image_server, b"HEAD / HTTP/1.1\r\nhost: tiny\r\naccept: text/html\r\nconnection: close\r\n\r\n"
    )
    head, _, body = response.partition(b"\r\n\r\n")
    assert statuses(response) == [200]
    assert b"content-type: text/html" in head
    assert body == b""


def test_expect_100_continue_and_http_1_0_are_supported(image_server):
    expecting = POST + LENGTH + b"expect: 100-continue\r\nconnection: close\r\n\r\n"
    response = exchange(image_server, expecting, BODY)
    assert statuses(response) == [100, 200]
    http_1_0 = (POST + LENGTH + b"\r\n").replace(b"HTTP/1.1", b"HTTP/1.0")
    assert json.loads(exchange(image_server, http_1_0 + BODY).partition(b"\r\n\r\n")[2]) == PREDICTION


class Echo:
    """An ASGI application that reads each body and responds with the number of bytes in its path."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.connections: set[Any] = set()
        self.respond = asyncio.Event()

    async def __call__(self, scope, receive, send) -> None:
        self.paths.append(scope["path"])
        while (message := await receive())["type"] == "http.request" and message["more_body"]:
            pass
        await self.respond.wait()
        size = int(scope["path"][1:])
        head = [(b"content-length", b"%d" % size)]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": bytes(size)})


def run_with_connections(check: Callable[..., Any], timeout: float = 60.0, memory: int = 300_000) -> None:
    """Run `check(app, connect)` with a server; `connect()` returns a reader and a writer."""

    async def run() -> None:
        app = Echo()
        config = uvicorn.Config(
            app, http=connection_class(timeout, memory, False, lambda *_: None), log_config=None, ws="none"
        )
        config.load()
        state = ServerState()
        app.connections = state.connections
        loop = asyncio.get_running_loop()
        protocol = partial(config.http_protocol_class, config=config, server_state=state, app_state={})
        async with await loop.create_server(protocol, "127.0.0.1", 0) as server:
            host, port = server.sockets[0].getsockname()
            await check(app, partial(asyncio.open_connection, host, port))
            for connection in list(state.connections):
                connection.transport.abort()

    asyncio.run(run())


def post(path: int, length: int) -> bytes:
    return b"POST /%d HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (path, length)


def test_above_the_memory_limit_the_longest_waiting_connection_is_closed():
    async def check(app, connect):
        app.respond.set()
        stalled = [await connect() for _ in range(4)]
        for _, writer in stalled:
            writer.write(post(1, 200_000) + bytes(70_000))
            await writer.drain()
        response = await stalled[0][0].read()
        assert statuses(response) == [503]
        assert b"300000" in response
        reader, writer = await connect()
        writer.write(post(1, 4) + bytes(4))
        assert (await reader.readline()).split()[1] == b"200"
        stalled[3][1].write(bytes(130_000))
        assert (await stalled[3][0].readline()).split()[1] == b"200"

    run_with_connections(check)


def test_headers_count_with_their_memory_use():
    async def check(_, connect):
        stalled = [await connect() for _ in range(3)]
        for _, writer in stalled:
            writer.write(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 600)
        assert statuses(await stalled[0][0].read()) == [503]

    run_with_connections(check)


def test_pipelined_requests_are_read_one_after_the_other():
    async def check(app, connect):
        reader, writer = await connect()
        writer.write((post(1, 5) + b"hello") * 500)
        writer.write_eof()
        while not app.paths:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert len(app.paths) == 1
        app.respond.set()
        received = statuses(await reader.read())
        # with 100 Continue, the server tests whether the client still reads
        assert [status for status in received if status != 100] == [200] * 500

    run_with_connections(check)


def test_a_client_that_does_not_read_its_response_is_disconnected():
    async def check(app, connect):
        app.respond.set()
        reader, writer = await connect()
        writer.transport.pause_reading()
        writer.write(post(50_000_000, 0) * 2)
        while not app.paths or app.connections:
            await asyncio.sleep(0.01)
        writer.transport.resume_reading()
        with suppress(ConnectionResetError):
            assert len(await reader.read()) < 50_000_000

    run_with_connections(check, timeout=0.2)
