"""A source at a URL, on servers with invalid, slow or interrupted responses."""

import gzip
import hashlib
import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelyard.components.errors import ConfigError, DataError
from modelyard.components.source.location import Location, locate
from modelyard.components.source.settings import Source

BODY = bytes(range(256)) * 16


@pytest.fixture
def location(web_server: Any) -> Callable[..., Location]:
    """Return a function that returns the location of a path on the server."""

    def locate_path(path: str = "/set.npz", **keys: object) -> Location:
        return locate(Source.model_validate({"kind": "npz", "source": web_server.url + path, **keys}))

    return locate_path


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def check_error(operation: Callable[[], object], match: str, scratch: Path | None = None) -> str:
    """Check that the error has one line and that scratch is empty; return the traceback."""
    with pytest.raises(DataError, match=match) as error:
        operation()
    assert "\n" not in str(error.value)
    assert scratch is None or not list(scratch.iterdir())
    return "".join(traceback.format_exception(error.value))


# Identity


def test_an_etag_is_the_identity_without_a_download(web_server: Any, location: Any) -> None:
    web_server.handle = lambda request: request.respond(200, BODY, etag='"1"')
    first = location().identity()
    assert location().identity() == first
    assert set(web_server.requests) == {"HEAD /set.npz"}
    web_server.handle = lambda request: request.respond(200, BODY, etag='"2"')
    assert location().identity() != first


@pytest.mark.parametrize(("modified", "body"), [("Tue", BODY), ("Mon", BODY[1:])])
def test_without_an_etag_the_identity_is_time_and_size(
    web_server: Any, location: Any, modified: str, body: bytes
) -> None:
    web_server.handle = lambda request: request.respond(200, BODY, last_modified="Mon")
    first = location().identity()
    assert location().identity() == first
    web_server.handle = lambda request: request.respond(200, body, last_modified=modified)
    assert location().identity() != first


@pytest.mark.parametrize("code", [200, 403, 404, 405, 501])
def test_a_server_without_head_gets_a_request_for_one_byte(web_server: Any, location: Any, code: int) -> None:
    def handle(request: Any) -> None:
        if request.command == "HEAD":
            request.respond(code)
        elif request.headers["range"] == "bytes=0-0":
            request.respond(206, BODY[:1], last_modified="Mon", content_range=f"bytes 0-0/{size}")

    web_server.handle, size = handle, 4096
    first = location().identity()
    assert web_server.requests == ["HEAD /set.npz", "GET /set.npz"]
    size = 4097
    assert location().identity() != first


@pytest.mark.parametrize("headers", [{}, {"last_modified": "Mon", "content_length": ""}], ids=str)
def test_a_server_without_etag_time_and_size_needs_a_sha256(
    web_server: Any, location: Any, headers: dict[str, str]
) -> None:
    def handle(request: Any) -> None:
        request.send_response(200)
        for name in headers.keys() - {"content_length"}:
            request.send_header(name.replace("_", "-"), headers[name])
        request.end_headers()

    web_server.handle = handle
    check_error(location().identity, r"neither an ETag nor .* Set data\.sha256")


def test_the_identity_depends_on_the_path_and_not_on_the_query(web_server: Any, location: Any) -> None:
    web_server.handle = lambda request: request.respond(200, BODY, etag='"mtime-size"')
    assert location("/a.npz").identity() != location("/b.npz").identity()
    assert location("/a.npz?key=1").identity() == location("/a.npz?key=2").identity()


def test_sha256_needs_no_request(web_server: Any, location: Any) -> None:
    assert location(sha256="0" * 64).identity() == "0" * 64
    assert web_server.requests == []


# Download


def test_a_file_keeps_its_name_and_its_bytes(web_server: Any, location: Any, scratch: Path) -> None:
    packed = gzip.compress(BODY)
    web_server.handle = lambda request: request.respond(200, packed, content_encoding="gzip")
    path = location("/my/set.tar.gz?key=1", sha256=hashlib.sha256(packed).hexdigest()).fetch(scratch)
    assert path == scratch / "set.tar.gz"
    assert path.read_bytes() == packed
    assert list(scratch.iterdir()) == [path]


def test_redirects_are_followed(web_server: Any, location: Any, scratch: Path) -> None:
    def handle(request: Any) -> None:
        if request.path == "/set.npz":
            request.respond(302, location="/mirror/1?token=2")
        else:
            request.respond(200, BODY, etag='"1"')

    web_server.handle = handle
    assert location().fetch(scratch).read_bytes() == BODY
    assert location().identity()
    web_server.handle = lambda request: request.respond(302, location=request.path)
    check_error(lambda: location().fetch(scratch / "second"), "redirect")


def test_a_password_comes_from_netrc(
    web_server: Any, location: Any, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def handle(request: Any) -> None:
        authorized = request.headers["authorization"] == "Basic bWU6c2VjcmV0"  # me:secret
        request.respond(200 if authorized else 401, BODY)

    web_server.handle = handle
    check_error(lambda: location().fetch(scratch), r"denies access \(401\)")
    monkeypatch.setenv("NETRC", str(netrc := scratch / "netrc"))
    for text in (
        "machine 127.0.0.1 login me password secret",
        "machine api.example.com\n  login x\n  password x\n  method interactive\n"
        "machine 127.0.0.1\n  login me # a comment\n  protocol https\n  password secret\n",
        'macdef init\n  machine 127.0.0.1 login x password x\n\ndefault password "secret" login "m\\e"',
    ):
        netrc.write_text(text)
        assert location().fetch(scratch).read_bytes() == BODY
    netrc.write_text("machine example.com login me password secret method interactive")
    check_error(lambda: location().fetch(scratch), r"denies access \(401\)")


def test_a_password_is_sent_only_to_its_host(
    web_server: Any, location: Any, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []

    def handle(request: Any) -> None:
        sent.append((request.headers["host"].partition(":")[0], request.headers["authorization"]))
        other_host = f"{web_server.url.replace('127.0.0.1', 'localhost')}/other.npz"
        if request.path == "/set.npz":
            request.respond(302, location=other_host)
        else:
            request.respond(200, BODY)

    web_server.handle = handle
    monkeypatch.setenv("NETRC", str(netrc := scratch / "netrc"))
    netrc.write_text("machine 127.0.0.1 login me password secret")
    location().fetch(scratch)
    assert sent == [("127.0.0.1", "Basic bWU6c2VjcmV0"), ("localhost", None)]


def test_a_proxy_is_used_for_other_hosts(
    web_server: Any, location: Any, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web_server.handle = lambda request: request.respond(200, BODY)
    monkeypatch.setenv("HTTP_PROXY", web_server.url)
    monkeypatch.setenv("SSL_CERT_FILE", "/missing")  # not needed for http://
    remote = locate(Source(kind="npz", source="http://data.invalid/set.npz"))
    assert remote.fetch(scratch).read_bytes() == location("/local.npz").fetch(scratch).read_bytes() == BODY
    assert web_server.requests == ["GET http://data.invalid/set.npz", "GET /local.npz"]
    web_server.handle = lambda request: request.respond(302, location="https://data.invalid/")
    with pytest.raises(ConfigError, match="SSL_CERT_FILE is /missing"):
        location().fetch(scratch)
    monkeypatch.setenv("HTTP_PROXY", "socks5://127.0.0.1:1")
    with pytest.raises(ConfigError, match="socksio"):
        remote.fetch(scratch)


@pytest.mark.parametrize(
    ("code", "headers", "match"),
    [
        (404, {}, r"has no such file \(404\)\. Correct data\.source"),
        (403, {}, r"denies access \(403\).*signed URL may have expired"),
        (400, {}, r"returned 400"),
        (304, {}, r"returned 304"),
        (200, {"content_type": "text/html; charset=utf-8"}, r"web page.* the file itself"),
        (200, {"content_type": "Text/HTML", "etag": "1"}, r"web page"),
    ],
)
def test_an_invalid_response_is_an_error(
    web_server: Any, location: Any, scratch: Path, code: int, headers: dict[str, str], match: str
) -> None:
    web_server.handle = lambda request: request.respond(code, b"<html>no</html>", **headers)
    check_error(location().identity, match)
    check_error(lambda: location().fetch(scratch), match, scratch)
    assert len(web_server.requests) == 3  # not retried


def test_a_busy_server_is_retried_a_limited_number_of_times(
    web_server: Any, location: Any, scratch: Path
) -> None:
    codes = [503, 429, 200]
    web_server.handle = lambda request: request.respond(codes.pop(0), BODY)
    assert location().fetch(scratch).read_bytes() == BODY
    web_server.handle = lambda request: request.respond(500)
    check_error(lambda: location().fetch(scratch / "second"), r"returned 500, even after retries")
    check_error(location().identity, r"returned 500")
    assert len(web_server.requests) == 3 + 3 + 2 * 3


def send_half(request: Any) -> None:
    """Send half of the declared bytes."""
    request.send_response(200)
    request.send_header("content-length", str(len(BODY)))
    request.end_headers()
    request.wfile.write(BODY[:2048])


def send_half_in_chunks(request: Any) -> None:
    request.protocol_version = "HTTP/1.1"
    request.send_response(200)
    request.send_header("transfer-encoding", "chunked")
    request.end_headers()
    request.wfile.write(b"800\r\n" + BODY[:2048] + b"\r\n")


@pytest.mark.parametrize("drop", [send_half, send_half_in_chunks])
def test_a_lost_connection_is_retried(web_server: Any, location: Any, scratch: Path, drop: Any) -> None:
    handlers = [drop, lambda request: request.respond(200, BODY)]
    web_server.handle = lambda request: handlers.pop(0)(request)
    assert location().fetch(scratch).read_bytes() == BODY


@pytest.mark.parametrize("drop", [send_half, send_half_in_chunks])
def test_a_truncated_file_is_deleted(web_server: Any, location: Any, scratch: Path, drop: Any) -> None:
    web_server.handle = drop
    check_error(lambda: location().fetch(scratch), "connection failed .* even after retries", scratch)
    assert len(web_server.requests) == 3


@pytest.mark.parametrize("send", [lambda _: None, send_half], ids=["nothing", "half"])
def test_a_stalled_server_times_out(web_server: Any, location: Any, scratch: Path, send: Any) -> None:
    def handle(request: Any) -> None:
        send(request)
        request.stall()

    web_server.handle = handle
    message = r"sent nothing for 0\.4 seconds.*data\.timeout"
    check_error(lambda: location(timeout=0.4).fetch(scratch), message, scratch)
    assert len(web_server.requests) == 1


def test_a_file_with_a_content_length_above_the_limit_is_not_downloaded(
    web_server: Any, location: Any, scratch: Path
) -> None:
    web_server.handle = lambda request: request.respond(200, BODY, content_length=str(2**40))
    check_error(
        lambda: location(max_bytes=2**30).fetch(scratch), r"data\.max_bytes allows 1,073,741,824", scratch
    )


def test_an_endless_stream_is_aborted(web_server: Any, location: Any, scratch: Path) -> None:
    sent = []

    def handle(request: Any) -> None:
        request.send_response(200)
        request.end_headers()
        while not request.web_server.closing.is_set():
            try:
                sent.append(request.wfile.write(BODY))
            except OSError:
                return

    web_server.handle = handle
    check_error(lambda: location(max_bytes=2**21).fetch(scratch), r"max_bytes allows 2,097,152", scratch)
    assert sum(sent) < 2**26  # only the socket buffers


def test_a_wrong_sha256_is_refused(web_server: Any, location: Any, scratch: Path) -> None:
    web_server.handle = lambda request: request.respond(200, BODY)
    actual = hashlib.sha256(BODY).hexdigest()
    match = f"SHA-256 of {web_server.url}/set.npz is {actual}, but data.sha256 is {'0' * 64}"
    check_error(lambda: location(sha256="0" * 64).fetch(scratch), match, scratch)


def test_unreachable_hosts_are_errors(scratch: Path, unreachable_url: str) -> None:
    unreachable = locate(Source(kind="npz", source=f"{unreachable_url}/set.npz"))
    check_error(unreachable.identity, "connection failed .*refused")
    check_error(lambda: unreachable.fetch(scratch), "connection failed .*refused", scratch)
    unknown = locate(Source(kind="npz", source="https://no-such-host.invalid/set.npz"))
    check_error(unknown.identity, r"the host no-such-host\.invalid is unknown .*Correct data\.source")


def test_an_unwritable_folder_is_an_error(web_server: Any, location: Any) -> None:
    web_server.handle = lambda request: request.respond(200, BODY)
    check_error(lambda: location().fetch(Path("/proc/scratch")), "Free disk space")


def test_secrets_in_a_url_are_not_in_messages_and_logs(
    web_server: Any, scratch: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    url = f"{web_server.url}/set.npz?key=hunter2#hunter2"
    location = locate(Source(kind="npz", source=url, timeout=0.2, sha256="0" * 64))
    without_sha256 = locate(Source(kind="npz", source=url, timeout=0.2))
    for handle in (
        lambda request: request.respond(200, BODY),
        lambda request: request.respond(404),
        lambda request: request.respond(503),
        lambda request: request.respond(302, location="/next?token=hunter2"),
        lambda request: request.respond(302, location="ftp://me:hunter2@host/?hunter2"),
        lambda request: request.respond(302, location="http://me:hunter2@host..net/?hunter2"),
        lambda request: request.stall(),
        send_half,
    ):
        web_server.handle = handle
        message = check_error(lambda: location.fetch(scratch), "127", scratch) + check_error(
            without_sha256.identity, "127"
        )
        assert "hunter2" not in message
    assert "hunter2" not in caplog.text


# Encryption


def test_an_untrusted_certificate_is_refused(web_server: Any, https_url: str, scratch: Path) -> None:
    web_server.handle = lambda request: request.respond(200, BODY)
    location = locate(Source(kind="npz", source=f"{https_url}/set.npz"))
    check_error(
        lambda: location.fetch(scratch), r"TLS connection failed .*certificate.* SSL_CERT_FILE", scratch
    )
    assert web_server.requests == []


def test_https_is_not_redirected_to_http(
    web_server: Any, https_url: str, ca_file: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    location = locate(Source(kind="npz", source=f"{https_url}/set.npz"))
    web_server.handle = lambda request: request.respond(200, BODY, etag='"1"')
    assert location.fetch(scratch).read_bytes() == BODY
    web_server.handle = lambda request: request.respond(302, location=f"{web_server.url}/plain.npz?hunter2")
    (scratch / "set.npz").unlink()
    check_error(
        lambda: location.fetch(scratch),
        r"redirects to http://127.*plain\.npz, which is not encrypted",
        scratch,
    )
    check_error(location.identity, "not encrypted")
    assert not any("plain" in line for line in web_server.requests)
