"""HTTP as hostile and unusual clients speak it. An update of uvicorn or httptools must keep all of this."""

import json
import random
import re
import socket
import time

import numpy as np
import pytest

WHITE = np.full((4, 4, 3), 255).tolist()
BODY = json.dumps({"instances": [WHITE]}).encode()
ANSWER = {"predictions": [[0, 1]]}
POST = b"POST /v1/models/tiny:predict HTTP/1.1\r\nhost: tiny\r\n"
LENGTH = b"content-length: %d\r\n" % len(BODY)
H2C = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"
WEBSOCKET = b"connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: a\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"
LIVE = b"GET /v2/health/live HTTP/1.1\r\nhost: tiny\r\n"
LAST = LIVE + b"connection: close\r\n\r\n"


def statuses(answer: bytes) -> list[int]:
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


def exchange(server, *parts: bytes, half_close: bool = False) -> bytes:
    """Send the parts with pauses and return what comes until the connection is closed, or for a second."""
    with socket.create_connection(server.address, 10) as connection:
        for number, part in enumerate(parts):
            time.sleep(0.02 if number else 0)
            connection.sendall(part)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        return received(connection)


def received(connection: socket.socket) -> bytes:
    answer = b""
    connection.settimeout(1.0)
    try:
        while part := connection.recv(65536):
            answer += part
    except (TimeoutError, ConnectionResetError):
        pass
    return answer


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)


@pytest.mark.parametrize("offer", [H2C, WEBSOCKET, b"upgrade: h2c\r\n"])
@pytest.mark.parametrize(
    ("head", "body"), [(LENGTH, BODY), (CHUNKED, chunked(BODY))], ids=["length", "chunked"]
)
def test_an_offer_to_upgrade_loses_no_body(pictures, offer, head, body):
    request = POST + offer + head + b"\r\n"
    for parts in ([request + body + LAST], [request, body, LAST], [request + body + request + body + LAST]):
        answer = exchange(pictures, *parts)
        assert statuses(answer)[0] == 200
        assert json.loads(answer.split(b"\r\n\r\n")[1][: len(b'{"predictions":[[0,1]]}')]) == ANSWER
        assert set(statuses(answer)) == {200}


@pytest.mark.parametrize("pause", [False, True])
def test_a_body_that_looks_like_a_request_is_not_run_as_one(pictures, pause):
    inner = LIVE + b"\r\n"
    head = POST + H2C + b"content-length: %d\r\n\r\n" % len(inner)
    answer = exchange(pictures, *([head, inner + LAST] if pause else [head + inner + LAST]))
    assert statuses(answer) == [400, 200]


def test_upgrade_without_a_body_is_answered_and_the_connection_goes_on(pictures):
    answer = exchange(pictures, LIVE + H2C + b"\r\n", LAST)
    assert statuses(answer) == [200, 200]


def test_requests_with_offers_are_answered_as_those_without(pictures):
    chance = random.Random(7)  # noqa: S311
    bodies = [(LENGTH, BODY), (CHUNKED, chunked(BODY)), (b"content-length: 2\r\n", b"{}")]
    for _ in range(20):
        plain, offering = b"", b""
        for _ in range(chance.randint(1, 3)):
            head, body = chance.choice(bodies)
            plain += POST + head + b"\r\n" + body
            offering += POST + chance.choice([b"", H2C, WEBSOCKET]) + head + b"\r\n" + body
        cut = chance.randrange(len(offering))
        answers = exchange(pictures, offering[:cut], offering[cut:] + LAST), exchange(pictures, plain + LAST)
        assert len({re.sub(rb"date: .*\r\n", b"", answer) for answer in answers}) == 1


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (b"2\r\n{}\r\n0\r\n", b"a: b\r\n" * 1000),
        (b"2\r\n{}\r\n0\r\n", b"x" * 6000),
        (b"2;", b"x" * 6000),
    ],
    ids=["trailers", "one trailer", "extension of a chunk"],
)
def test_what_is_beside_the_body_is_limited(pictures, begin, more):
    with socket.create_connection(pictures.address, 10) as connection:
        connection.sendall(POST + CHUNKED + b"\r\n" + begin)
        answer = b""
        try:
            for _ in range(200):
                connection.sendall(more)
                time.sleep(0.001)
        except OSError:
            pass
        else:
            pytest.fail("The server took a megabyte.")
        answer = received(connection)
    assert statuses(answer) in ([431], [400], [])  # the answer may be lost in a reset
    assert pictures.predict([WHITE]).json() == ANSWER


def test_chunks_of_single_bytes_are_a_body(pictures):
    pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY.ljust(20_000)) + b"0\r\n\r\n"
    answer = exchange(pictures, POST + CHUNKED + b"connection: close\r\n\r\n" + pieces)
    assert statuses(answer) == [200]


def test_trailers_are_dropped(pictures):
    trailers = b"0\r\nx-modelyard-golden: 1\r\n\r\n"
    before = pictures.metric("modelyard_requests_total", traffic='"golden"')
    body = b"%x\r\n%s\r\n" % (len(BODY), BODY)
    answer = exchange(pictures, POST + CHUNKED + b"connection: close\r\n\r\n" + body + trailers)
    assert statuses(answer) == [200]
    assert pictures.metric("modelyard_requests_total", traffic='"golden"') == before


def test_a_length_with_thousands_of_zeros_gets_400(pictures):
    answer = exchange(pictures, POST + b"content-length: %s2\r\nconnection: close\r\n\r\n{}" % (b"0" * 5000))
    assert statuses(answer) == [400]


def test_a_client_that_closed_its_direction_gets_its_answer(pictures):
    answer = exchange(pictures, POST + LENGTH + b"\r\n" + BODY, half_close=True)
    assert statuses(answer)[-1] == 200


def test_head_has_the_headers_of_get_and_no_body(pictures):
    answer = exchange(
        pictures, b"HEAD / HTTP/1.1\r\nhost: tiny\r\naccept: text/html\r\nconnection: close\r\n\r\n"
    )
    head, _, body = answer.partition(b"\r\n\r\n")
    assert statuses(answer) == [200]
    assert b"content-type: text/html" in head
    assert body == b""


def test_clients_that_wait_for_100_continue_and_clients_of_http_1_0(pictures):
    expecting = POST + LENGTH + b"expect: 100-continue\r\nconnection: close\r\n\r\n"
    answer = exchange(pictures, expecting, BODY)
    assert statuses(answer) == [100, 200]
    old = (POST + LENGTH + b"\r\n").replace(b"HTTP/1.1", b"HTTP/1.0")
    assert json.loads(exchange(pictures, old + BODY).partition(b"\r\n\r\n")[2]) == ANSWER
