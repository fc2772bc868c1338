"""Attacks on a server: each function sends requests once and returns their outcomes.

An outcome is a status such as "200", or "closed" if the server closed the connection without a response. An
outcome that begins with "BAD" describes a failure of the server. The bytes come from a seeded `Random`, which
makes a failure repeatable.
"""

import base64
import copy
import gzip
import json
import multiprocessing
import os
import re
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import cache
from random import Random
from typing import Any

from tests import image_files

SHARE = float(os.environ.get("MODELYARD_TEST_SOAK", "1"))
SECONDS = 600 * SHARE
SPAWN = multiprocessing.get_context("spawn")
SIDE = 4  # of the images of the model
PREDICT = b"POST /v1/models/tiny:predict HTTP/1.1\r\nhost: tiny\r\nconnection: close\r\n"
INFER = PREDICT.replace(b"/v1/models/tiny:predict", b"/v2/models/tiny/infer")
HEALTH = b"GET /v2/health/live HTTP/1.1\r\nhost: tiny\r\n\r\n"
UPGRADE = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"
EXAMPLE = [[[9, 9, 9]] * SIDE] * SIDE
PLAIN = json.dumps({"instances": [EXAMPLE]}).encode()
Address = tuple[str, int]
TIMEOUT = 60.0  # seconds for a response


def exchange(address: Address, *pieces: bytes, pause: float = 0.0, half_close: bool = False) -> bytes:
    """Send the pieces on one connection and return the bytes until the server closes it."""
    response = b""
    with socket.create_connection(address, TIMEOUT) as connection, suppress(ConnectionError):
        with suppress(ConnectionError):  # the server may refuse the request before its end
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        while part := connection.recv(65536):
            response += part
    return response


def outcomes(response: bytes) -> list[str]:
    """Return the statuses in the responses of a server; an error must have a reason."""
    statuses = []
    for number, rest in re.findall(rb"HTTP/1\.1 (\d{3}) [^\r]*\r\n.*?\r\n\r\n([^\r]*)", response, re.S):
        status = number.decode()
        if rest and status[0] in "45" and not rest.startswith((b'{"error":"', b"HTTP/1.1 ")):  # or of a HEAD
            status = f"BAD {status} without a reason: {rest[:80]!r}"
        if status not in ("100", "503") and status[0] not in "234B":
            status = f"BAD {status}: {rest[:160]!r}"
        statuses += [] if status == "100" else [status]
    return statuses or ["closed"]


def post(address: Address, body: bytes, head: bytes = PREDICT) -> list[str]:
    """Send one complete request, which must get a response."""
    statuses = outcomes(exchange(address, head + b"content-length: %d\r\n\r\n" % len(body) + body))
    return ["BAD no response"] if statuses == ["closed"] else statuses


def regular_client(address: Address, random: Random) -> list[str]:
    """Send valid requests on a connection that remains open."""
    body = b"content-length: %d\r\n\r\n" % len(PLAIN) + PLAIN
    request = PREDICT.replace(b"connection: close\r\n", b"") + body
    statuses = []
    with socket.create_connection(address, TIMEOUT) as connection, connection.makefile("rb") as responses:
        for _ in range(20):
            connection.sendall(request)
            if not (line := responses.readline()):
                return [*statuses, "closed"]  # the server closes idle connections if memory is low
            status = line.split()[1].decode()
            head = dict(line.split(b": ") for line in iter(lambda: responses.readline().strip(), b""))
            body = responses.read(int(head[b"content-length"]))
            if status == "200" and b"[[0.964705" not in body:
                status = f"BAD response {body[:80]!r}"
            statuses.append(status if status in ("200", "503") else f"BAD {status} {body[:160]!r}")
            time.sleep(0.005 + 0.01 * random.random())
    return statuses


# Bodies: JSON and binary tensors with invalid values, keys and bytes.

ATOMS: list[Any] = [
    *(None, True, False, 0, -1, 1, 255, 256, 2**31, 2**63, 2**64, -(2**63), 1.5, 1e308, -0.0, 1e-320),
    *("", "a", "\ud800", " ", "input", "b64", "é\u0000\U0001f600", "A" * 300, [], {}, [[]], [{}]),
    *({"b64": ""}, {"b64": None}, {"input": []}, [1, 2, 3], [[1], [2, 3]]),
]
KEYS = [
    *("instances", "inputs", "input", "name", "shape", "datatype", "data", "parameters", "b64", "outputs"),
    *("id", "binary_data_size", "signature_name", "x"),
]
BYTES = [b"[", b"]", b"{", b"}", b",", b'"', b"\\", b"\0", b"NaN", b"1e999", b"\xff", b"-", b"0", b"\\ud83d"]


def random_value(random: Random, depth: int = 0) -> Any:
    """Return a random JSON value, which is rarely valid."""
    kind = random.random()
    if kind < 0.6 or depth > 4:
        return copy.deepcopy(random.choice(ATOMS))
    if kind < 0.8:
        return [random_value(random, depth + 1) for _ in range(random.randrange(5))]
    return {random.choice(KEYS): random_value(random, depth + 1) for _ in range(random.randrange(4))}


def mutate(random: Random, document: Any) -> Any:
    """Return a copy of a document with some values replaced, removed or repeated."""
    document = copy.deepcopy(document)
    for _ in range(random.choice((0, 0, 1, 1, 1, 2))):
        node = document
        while isinstance(node, dict | list) and node:
            key = random.choice(list(node)) if isinstance(node, dict) else random.randrange(len(node))
            if not isinstance(node[key], dict | list) or random.random() < 0.3:
                break
            node = node[key]
        if not isinstance(node, dict | list) or not node:
            return random_value(random)
        kind = random.random()
        if kind < 0.5:
            node[key] = random_value(random)
        elif kind < 0.7:
            del node[key]
        elif isinstance(node, dict):
            node[random.choice(KEYS)] = random_value(random)
        else:
            node.insert(key, copy.deepcopy(random.choice((node[key], random_value(random)))))
    return document


def damage(random: Random, data: bytes, tokens: list[bytes]) -> bytes:
    """Return a copy of the data with some bytes replaced, added or removed."""
    result = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 5))):
        position, kind = random.randrange(len(result) + 1), random.random()
        if kind < 0.4:
            result[position : position + 1] = bytes([random.randrange(256)])
        elif kind < 0.7:
            result[position:position] = random.choice(tokens)
        elif kind < 0.95:
            del result[position : position + random.randrange(1, 20)]
        else:
            del result[position:]
    return bytes(result)


def structured(address: Address, random: Random) -> list[str]:
    """Send a request of one of the protocols with a nearly valid body."""
    count = random.choice((1, 1, 2, 3))
    examples = [[[[random.randrange(256)] * 3] * SIDE] * SIDE] * count
    head, tail = PREDICT, b""
    document: Any
    match random.randrange(6):
        case 0:
            document = {"instances": examples, "signature_name": "serving_default"}
        case 1:
            document = {"instances": [{"input": example} for example in examples]}
        case 2:
            document = {"inputs": {"pixels": examples}}
        case 3:
            document = {"instances": [image(random) for _ in range(count)]}
        case kind:
            head = INFER
            tensor: Any = {"name": "pixels", "shape": [count, SIDE, SIDE, 3], "datatype": "UINT8"}
            output = {"name": "probabilities", "parameters": {"binary_data": random.choice((True, False, 1))}}
            document = {"inputs": [tensor], "outputs": [output] * random.randrange(2), "id": "é"}
            if kind == 4:
                tensor["data"] = examples
            else:
                tail = random.randbytes(count * SIDE * SIDE * 3 + random.choice((0, 0, 0, 1, -1)))
                tensor["parameters"] = {"binary_data_size": len(tail)}
    text = json.dumps(mutate(random, document), ensure_ascii=random.random() < 0.5)
    body = text.encode("utf-8", "surrogatepass")
    if random.random() < 0.2:
        body = damage(random, body, BYTES)
    if tail or random.random() < 0.05:
        length = random.choice([str(len(body))] * 8 + ["0", "-1", "+5", "0x10", "1e3", "9" * 14, ""])
        head += b"inference-header-content-length: %s\r\n" % length.encode()
    return post(address, body + tail, head)


# Requests whose framing is damaged.

TOKENS = [
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b":",
        b";",
        b"\r\n\r\n",
        b"\xff" * 4,
        b"%00",
        b"//",
        b"?",
        b"#",
    ),
    *(b"content-length: 5\r\n", b"content-length: -1\r\n", b"content-length: " + b"0" * 5000 + b"9\r\n"),
    *(b"transfer-encoding: chunked\r\n", b"transfer-encoding: x\r\n", b"expect: 100-continue\r\n", UPGRADE),
    *(b"HTTP/1.1", b"HTTP/1.0", b"HTTP/9.9", b"GET ", b"CONNECT ", b"*", b"http://a/", b"0\r\n\r\n"),
    *(b"5\r\nhello\r\n", b"ffffffffffffffff\r\n", b"a" * 70000, b"x: y\r\n" * 500),
]
PATHS = [
    *(b"/", b"/metrics", b"/v2", b"/v2/health/live", b"/v2/health/ready", b"/v2/models/tiny", b"*"),
    *(b"/v1/models/tiny", b"/v1/models/tiny:predict", b"/v2/models/tiny/infer", b"http://x/v2"),
]


def raw(address: Address, random: Random) -> list[str]:
    """Send one to three requests with damaged heads and chunks, in one or two packets."""
    data = b""
    for _ in range(random.choice((1, 1, 2, 3))):
        path, kind = random.choice(PATHS), random.random()
        if kind < 0.4:
            method = random.choice((b"GET", b"GET", b"HEAD", b"OPTIONS", b"PUT", b"TRACE"))
            request = b"%s %s HTTP/1.1\r\nhost: x\r\n\r\n" % (method, path)
        elif kind < 0.75:
            request = b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (path, len(PLAIN))
            request += PLAIN
        else:
            request = b"POST %s HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" % path
            request += chunked(PLAIN, random.randrange(100, 2000)) + b"0\r\n\r\n"
        head = request.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        data += (damage(random, head, TOKENS) if random.random() < 0.8 else head) + request[len(head) :]
    cut = random.randrange(len(data) + 1)
    pieces = (data[:cut], data[cut:]) if random.random() < 0.3 else (data,)
    return outcomes(exchange(address, *pieces, half_close=True))


def chunked(body: bytes, size: int) -> bytes:
    """Return a body in chunks, without the last chunk."""
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)


def trailers(address: Address, random: Random) -> list[str]:
    """Send many bytes outside of the body: trailers, chunk extensions, tiny chunks, headers."""
    chunk = b"transfer-encoding: chunked\r\n\r\n"
    start, repeated = random.choice(
        (
            (PREDICT + chunk + b"2\r\n{}\r\n0\r\n", b"a: b\r\n" * 10_000),
            (PREDICT + chunk + b"2\r\n{}\r\n0\r\n", b"x" * 60_000),
            (PREDICT + chunk + b"2;", b"a" * 60_000),
            (PREDICT + chunk, b"1\r\n \r\n" * 10_000),
            (PREDICT, b"a:\r\n" * 10_000),
            (PREDICT + b"a: ", b"b" * 60_000),
            (PREDICT, b"".join(b"a%d: b\r\n" % number for number in range(random.randrange(9_000)))),
        )
    )
    return outcomes(exchange(address, start, *[repeated] * random.choice((1, 2, 20)), b"\r\n\r\n"))


def upgrade(address: Address, random: Random) -> list[str]:
    """Send a request that offers an upgrade, in one or two packets; its body may be another request."""
    body = random.choice((PLAIN, HEALTH))
    head = PREDICT.replace(b"connection: close\r\n", UPGRADE) + b"content-length: %d\r\n\r\n" % len(body)
    pieces = (head + body,) if random.random() < 0.5 else (head, body)
    statuses = outcomes(exchange(address, *pieces, half_close=True))
    return statuses if len(statuses) == 1 else [f"BAD {statuses} to one request"]


# Images.


@cache
def images() -> dict[str, bytes]:
    """Return small files of images that need much memory or time, below and above the limit of pixels."""
    return {
        "narrow": image_files.png(1, 49_999_999),
        "wide": image_files.png(16_384, 100),
        "gray": image_files.png(4000, 3000),
        "gray with transparency": image_files.png(4000, 3000, 4, 8),
        "colors with transparency": image_files.png(4000, 3000, 6, 8),
        "16 bits": image_files.png(4000, 3000, 0, 16),
        "too large": image_files.png(7071, 7071),
        "a megapixel": image_files.png(1000, 1000, 6, 8),
        "texts": image_files.png(8, 8, texts=60),
        "JPEG": image_files.solid("CMYK", 4000, 3000, "JPEG"),
        "progressive JPEG": image_files.solid("RGB", 4000, 3000, "JPEG", progressive=True),
        "90 scans": image_files.scans(2000, 1500, 80),
        "2,000 scans": image_files.scans(400, 300, 2000),
        "WebP": image_files.solid("RGBA", 4000, 3000, "WEBP", lossless=True, method=0, quality=0),
        "GIF": image_files.solid("P", 4000, 3000, "GIF"),
        "GIF, disposal": image_files.gif(65_535, 2700),
        "TIFF": image_files.solid("RGBA", 4000, 3000, "TIFF", compression="tiff_adobe_deflate"),
        "TIFF, large tile": image_files.tiff(64, 64, 8192),
    }


@cache
def small_images() -> list[bytes]:
    """Return small images of all formats and modes."""
    files = []
    for form in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"):
        for mode in ("RGB", "L", "LA", "RGBA", "P", "1", "CMYK", "I;16", "F"):
            with suppress(OSError, ValueError):
                files.append(image_files.solid(mode, 23, 17, form))
    return files


def image(random: Random) -> dict[str, str]:
    """Return an example that is a small image, often damaged."""
    data = random.choice(small_images())
    if random.random() < 0.7:
        data = damage(random, data, [b"\0", b"\xff\xff", data[:40]])
    return {"b64": base64.b64encode(data).decode()}


def damaged_image(address: Address, random: Random) -> list[str]:
    """Send one to three small images."""
    document = {"instances": [image(random) for _ in range(random.choice((1, 1, 3)))]}
    return post(address, json.dumps(document).encode())


def costly_image(address: Address, random: Random) -> list[str]:
    """Send images that are small in bytes, once or several times in a request."""
    data = images()[random.choice(list(images()))]
    request = b'{"b64":"%s"}' % base64.b64encode(data)
    count = min(random.choice((1, 1, 4, 20, 200)), max(1, 4_000_000 // len(request)))
    return post(address, b'{"instances":[%s]}' % b",".join([request] * count))


# Large requests.

LARGE = 9_000_000  # bytes, just below the limit of a body with 512 MiB of memory


@cache
def bodies() -> list[tuple[bytes, bytes]]:
    """Return heads and bodies that are large, some after decompression."""
    example = json.dumps(EXAMPLE, separators=(",", ":")).encode()
    batch = b'{"instances":[%s]}' % b",".join([example] * 1024)
    zeros = b'{"instances":[[%s]]}' % b",".join([b"0"] * (LARGE // 2))
    tensor = {"name": "pixels", "datatype": "UINT8", "shape": [1024, SIDE, SIDE, 3]}
    flat = json.dumps({"inputs": [{**tensor, "data": [0] * (1024 * SIDE * SIDE * 3)}]}).encode()
    size = 1024 * SIDE * SIDE * 3
    text = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": size}}]}).encode()
    binary = INFER + b"inference-header-content-length: %d\r\n" % len(text)
    zipped = PREDICT + b"content-encoding: gzip\r\n"
    return [
        (PREDICT, batch),
        (PREDICT, zeros),
        (PREDICT, b"[" * LARGE),
        (PREDICT, b'{"instances":[%s]}' % b",".join([b"[]"] * (LARGE // 3))),
        (PREDICT, b"{%s}" % b",".join(b'"%d":1' % number for number in range(LARGE // 12))),
        (INFER, flat),
        (INFER, b'{"inputs":[{"shape":[%s]}]}' % b",".join([b"1"] * (LARGE // 2))),
        (binary, text + bytes(size)),
        (zipped, gzip.compress(batch)),
        (zipped, gzip.compress(zeros)),
        (zipped, gzip.compress(bytes(10 * LARGE))),
        (PREDICT + b"content-type: image/png\r\n", bytes(LARGE)),
        (PREDICT.replace(b"tiny:", b"none:"), bytes(LARGE)),
        (PREDICT, bytes(5 * LARGE)),
    ]


def large(address: Address, random: Random) -> list[str]:
    """Send a large body or batch."""
    head, body = random.choice(bodies())
    return post(address, body, head)


# Slow clients, aborted connections and many connections.


def upload(address: Address, random: Random) -> list[str]:
    """Send a body in an unusual way: in chunks or pieces, truncated, too long, compressed, as a form."""
    length = b"content-length: %d\r\n\r\n"
    head, body = random.choice(((PREDICT, PLAIN), (PREDICT + b"expect: 100-continue\r\n", PLAIN)))
    request = head + length % len(body) + body
    cut = random.randrange(len(request))
    match random.randrange(7):
        case 0:
            data = chunked(body, random.randrange(1, 5000)) + b"0\r\n\r\n"
            pieces = [head + b"transfer-encoding: chunked\r\n\r\n", data]
        case 1:
            pieces = [request[:cut], request[cut:]]
        case 2:
            pieces = [request[:cut]]
        case 3:
            pieces = [head + length % (len(body) + random.choice((-3, 3, 10**8, 10**17))) + body]
        case 4:
            zipped = gzip.compress(body)
            zipped = damage(random, zipped, BYTES) if random.random() < 0.5 else zipped
            pieces = [head + b"content-encoding: gzip\r\n" + length % len(zipped) + zipped]
        case 5:
            pieces = [head + b"content-type: multipart/form-data\r\n" + length % len(body) + body]
        case _:
            pieces = [request[start : start + 1000] for start in range(0, len(request), 1000)]
    return outcomes(exchange(address, *pieces, pause=0.001, half_close=True))


RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def abort(address: Address, random: Random) -> list[str]:
    """Open a connection and abort it."""
    request = PREDICT + b"content-length: %d\r\n\r\n" % len(PLAIN) + PLAIN
    data = random.choice((b"", b"P", HEALTH[:-2], request[:80], request[:-1], request, b"\x16\x03\x01\x02\0"))
    with socket.create_connection(address, TIMEOUT) as connection, suppress(OSError):
        connection.sendall(data)
        match random.randrange(4):
            case 0:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            case 1:
                connection.shutdown(socket.SHUT_WR)
                response = b"".join(iter(lambda: connection.recv(65536), b""))
                if data == request:
                    return outcomes(response)
            case 2:
                connection.shutdown(socket.SHUT_RD)
            case _:
                time.sleep(random.choice((0, 0.001, 0.01)))
    return ["closed"]


def many_connections(address: Address, random: Random, seconds: float = 2.0) -> list[str]:
    """Keep 300 connections open: idle, stalled uploads, long heads, unread responses."""
    headers = b"".join(b"a%d: b\r\n" % number for number in range(8_000))
    example = json.dumps(EXAMPLE, separators=(",", ":")).encode()
    large_body = b'{"instances":[%s]}' % b",".join([example] * 100)
    keep = PREDICT.replace(b"connection: close\r\n", b"")
    data = random.choice(
        (
            b"",
            PREDICT,
            PREDICT + headers[:64_000],
            PREDICT + b"a: " + b"b" * 64_000,
            PREDICT + b"content-length: 1000\r\n\r\n{",
            PREDICT + b"content-length: 1000000\r\n\r\n" + bytes(400_000),
            HEALTH * 5_000,
            b"GET / HTTP/1.1\r\nhost: x\r\naccept: text/html\r\n\r\n" * 2_000,
            (keep + b"content-length: %d\r\n\r\n" % len(large_body) + large_body) * 2,
        )
    )
    statuses, connections = [], []
    for _ in range(300):
        with suppress(OSError):
            connection = socket.create_connection(address, 2)
            connections.append(connection)
            connection.settimeout(0.01)
            connection.sendall(data)
    time.sleep(seconds * random.random())
    for connection in connections:
        with suppress(OSError), connection:
            statuses += outcomes(connection.recv(4096).partition(b"HTTP/1.1 200")[0])
    return statuses


def silent(address: Address, random: Random) -> list[str]:
    """Keep 2,000 connections open and send nothing, or the beginning of a TLS handshake."""
    connections, closed = [], 0
    for _ in range(2000):
        with suppress(OSError):
            connection = socket.create_connection(address, 2)
            connections.append(connection)
            connection.sendall(random.choice((b"", b"\x16\x03\x01\x02\0\1")))
    for connection in connections:
        with suppress(OSError), connection:
            connection.setblocking(False)
            closed += connection.recv(1) == b""
    return ["closed"] * closed + ["open"] * (len(connections) - closed)


Attack = Callable[[Address, Random], list[str]]
KINDS: dict[str, tuple[Attack, float]] = {
    "structured": (structured, 0.40),
    "raw": (raw, 0.25),
    "upload": (upload, 0.12),
    "damaged image": (damaged_image, 0.15),
    "costly image": (costly_image, 0.002),
    "trailers": (trailers, 0.04),
    "upgrade": (upgrade, 0.02),
    "large": (large, 0.002),
    "abort": (abort, 0.016),
}
"""Each attack, and its share of the requests of a mixture."""


def repeat(attack: Attack, address: Address, seed: int, seconds: float) -> Counter[str]:
    """Attack for some seconds and count the outcomes."""
    random, outcome_counts = Random(seed), Counter[str]()  # noqa: S311
    attack_once(attack, address, random)  # creates large bodies before the time starts
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        outcome_counts.update(attack_once(attack, address, random))
    return outcome_counts


def count(attack: Attack, address: Address, seed: int, times: int) -> Counter[str]:
    """Attack some times and count the outcomes."""
    random, outcome_counts = Random(seed), Counter[str]()  # noqa: S311
    for _ in range(times):
        outcome_counts.update(attack_once(attack, address, random))
    return outcome_counts


def mixture(address: Address, seed: int, times: int) -> Counter[str]:
    """Send requests of all kinds, in their shares, and count the outcomes."""
    attacks, shares = zip(*KINDS.values(), strict=True)
    return count(
        lambda target, random: random.choices(attacks, shares)[0](target, random), address, seed, times
    )


def attack_once(attack: Attack, address: Address, random: Random) -> list[str]:
    """Attack once; a missing response is bad."""
    try:
        return attack(address, random)
    except TimeoutError:
        return [f"BAD no response in {TIMEOUT:g} s"]
    except OSError as error:
        return [type(error).__name__]


def run_attacks(work: list[tuple[object, ...]], processes: int = 4) -> Counter[str]:
    """Call functions in processes and return the outcomes of all requests."""
    with ProcessPoolExecutor(processes, mp_context=SPAWN) as pool:
        calls = [pool.submit(*call) for call in work]
        return sum((call.result() for call in calls), Counter())


def run_all_attacks(address: Address) -> Counter[str]:
    """Run all attacks and a regular client concurrently; return the outcomes."""
    attacks = (*(attack for attack, _ in KINDS.values()), many_connections, regular_client)
    work = [(repeat, attack, address, seed, SECONDS) for seed, attack in enumerate(attacks)]
    return run_attacks(work, len(work))
