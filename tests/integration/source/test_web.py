"""A source on the web, asked of a real server that behaves badly."""

import gzip
import hashlib
import logging
import socket
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
def place(site: Any) -> Callable[..., Location]:
    """The file of the server at a path."""

    def at(path: str = "/set.npz", **keys: object) -> Location:
        return locate(Source.model_validate({"kind": "npz", "source": site.url + path, **keys}))

    return at


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def refused(use: Callable[[], object], match: str, scratch: Path | None = None) -> str:
    """See the error in one line, and nothing in scratch; give the traceback."""
    with pytest.raises(DataError, match=match) as caught:
        use()
    assert "\n" not in str(caught.value)
    assert scratch is None or not list(scratch.iterdir())
    return "".join(traceback.format_exception(caught.value))


# Looking


def test_an_etag_is_enough_and_nothing_is_fetched(site: Any, place: Any) -> None:
    site.answer = lambda request: request.send(200, BODY, etag='"1"')
    first = place().identity()
    assert place().identity() == first
    assert set(site.asked) == {"HEAD /set.npz"}
    site.answer = lambda request: request.send(200, BODY, etag='"2"')
    assert place().identity() != first


@pytest.mark.parametrize(("modified", "body"), [("Tue", BODY), ("Mon", BODY[1:])])
def test_without_an_etag_the_identity_is_time_and_size(
    site: Any, place: Any, modified: str, body: bytes
) -> None:
    site.answer = lambda request: request.send(200, BODY, last_modified="Mon")
    first = place().identity()
    assert place().identity() == first
    site.answer = lambda request: request.send(200, body, last_modified=modified)
    assert place().identity() != first


@pytest.mark.parametrize("code", [200, 403, 404, 405, 501])
def test_a_server_without_head_gets_a_request_for_one_byte(site: Any, place: Any, code: int) -> None:
    def answer(request: Any) -> None:
        if request.command == "HEAD":
            request.send(code)
        elif request.headers["range"] == "bytes=0-0":
            request.send(206, BODY[:1], last_modified="Mon", content_range=f"bytes 0-0/{size}")

    site.answer, size = answer, 4096
    first = place().identity()
    assert site.asked == ["HEAD /set.npz", "GET /set.npz"]
    size = 4097
    assert place().identity() != first


@pytest.mark.parametrize("headers", [{}, {"last_modified": "Mon", "content_length": ""}], ids=str)
def test_a_server_without_etag_time_and_size_needs_a_sha256(
    site: Any, place: Any, headers: dict[str, str]
) -> None:
    def answer(request: Any) -> None:
        request.send_response(200)
        for name in headers.keys() - {"content_length"}:
            request.send_header(name.replace("_", "-"), headers[name])
        request.end_headers()

    site.answer = answer
    refused(place().identity, r"neither an ETag nor .* Set data\.sha256")


def test_the_identity_depends_on_the_path_and_not_on_the_query(site: Any, place: Any) -> None:
    site.answer = lambda request: request.send(200, BODY, etag='"mtime-size"')
    assert place("/a.npz").identity() != place("/b.npz").identity()
    assert place("/a.npz?key=1").identity() == place("/a.npz?key=2").identity()


def test_sha256_needs_no_request(site: Any, place: Any) -> None:
    assert place(sha256="0" * 64).identity() == "0" * 64
    assert site.asked == []


# Fetching


def test_a_file_keeps_its_name_and_its_bytes(site: Any, place: Any, scratch: Path) -> None:
    packed = gzip.compress(BODY)
    site.answer = lambda request: request.send(200, packed, content_encoding="gzip")
    path = place("/my/set.tar.gz?key=1", sha256=hashlib.sha256(packed).hexdigest()).fetch(scratch)
    assert path == scratch / "set.tar.gz"
    assert path.read_bytes() == packed
    assert list(scratch.iterdir()) == [path]


def test_redirects_are_followed(site: Any, place: Any, scratch: Path) -> None:
    def answer(request: Any) -> None:
        if request.path == "/set.npz":
            request.send(302, location="/mirror/1?token=2")
        else:
            request.send(200, BODY, etag='"1"')

    site.answer = answer
    assert place().fetch(scratch).read_bytes() == BODY
    assert place().identity()
    site.answer = lambda request: request.send(302, location=request.path)
    refused(lambda: place().fetch(scratch / "again"), "redirect")


def test_a_password_comes_from_netrc(
    site: Any, place: Any, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(request: Any) -> None:
        right = request.headers["authorization"] == "Basic bWU6c2VjcmV0"  # me:secret
        request.send(200 if right else 401, BODY)

    site.answer = answer
    refused(lambda: place().fetch(scratch), r"denies access \(401\)")
    monkeypatch.setenv("NETRC", str(netrc := scratch / "netrc"))
    for text in (
        "machine 127.0.0.1 login me password secret",
        "machine api.example.com\n  login x\n  password x\n  method interactive\n"
        "machine 127.0.0.1\n  login me # or you\n  protocol https\n  password secret\n",
        'macdef init\n  machine 127.0.0.1 login x password x\n\ndefault password "secret" login "m\\e"',
    ):
        netrc.write_text(text)
        assert place().fetch(scratch).read_bytes() == BODY
    netrc.write_text("machine example.com login me password secret method interactive")
    refused(lambda: place().fetch(scratch), r"denies access \(401\)")


def test_a_password_is_sent_only_to_its_host(
    site: Any, place: Any, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []

    def answer(request: Any) -> None:
        sent.append((request.headers["host"].partition(":")[0], request.headers["authorization"]))
        elsewhere = f"{site.url.replace('127.0.0.1', 'localhost')}/other.npz"
        request.send(302, location=elsewhere) if request.path == "/set.npz" else request.send(200, BODY)

    site.answer = answer
    monkeypatch.setenv("NETRC", str(netrc := scratch / "netrc"))
    netrc.write_text("machine 127.0.0.1 login me password secret")
    place().fetch(scratch)
    assert sent == [("127.0.0.1", "Basic bWU6c2VjcmV0"), ("localhost", None)]


def test_a_proxy_is_used_for_other_hosts(
    site: Any, place: Any, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.answer = lambda request: request.send(200, BODY)
    monkeypatch.setenv("HTTP_PROXY", site.url)
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")  # which http:// does not need
    far = locate(Source(kind="npz", source="http://data.invalid/set.npz"))
    assert far.fetch(scratch).read_bytes() == place("/near.npz").fetch(scratch).read_bytes() == BODY
    assert site.asked == ["GET http://data.invalid/set.npz", "GET /near.npz"]
    site.answer = lambda request: request.send(302, location="https://data.invalid/")
    with pytest.raises(ConfigError, match="SSL_CERT_FILE is /nowhere"):
        place().fetch(scratch)
    monkeypatch.setenv("HTTP_PROXY", "socks5://127.0.0.1:1")
    with pytest.raises(ConfigError, match="socksio"):
        far.fetch(scratch)


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
def test_an_invalid_response(
    site: Any, place: Any, scratch: Path, code: int, headers: dict[str, str], match: str
) -> None:
    site.answer = lambda request: request.send(code, b"<html>no</html>", **headers)
    refused(place().identity, match)
    refused(lambda: place().fetch(scratch), match, scratch)
    assert len(site.asked) == 3  # not asked again


def test_a_busy_server_is_retried_a_limited_number_of_times(site: Any, place: Any, scratch: Path) -> None:
    codes = [503, 429, 200]
    site.answer = lambda request: request.send(codes.pop(0), BODY)
    assert place().fetch(scratch).read_bytes() == BODY
    site.answer = lambda request: request.send(500)
    refused(lambda: place().fetch(scratch / "again"), r"returned 500, also after retries")
    refused(place().identity, r"returned 500")
    assert len(site.asked) == 3 + 3 + 2 * 3


def half(request: Any) -> None:
    """Promise all of the file, and send half of it."""
    request.send_response(200)
    request.send_header("content-length", str(len(BODY)))
    request.end_headers()
    request.wfile.write(BODY[:2048])


def half_in_chunks(request: Any) -> None:
    request.protocol_version = "HTTP/1.1"
    request.send_response(200)
    request.send_header("transfer-encoding", "chunked")
    request.end_headers()
    request.wfile.write(b"800\r\n" + BODY[:2048] + b"\r\n")


@pytest.mark.parametrize("drop", [half, half_in_chunks])
def test_a_lost_connection_is_retried(site: Any, place: Any, scratch: Path, drop: Any) -> None:
    answers = [drop, lambda request: request.send(200, BODY)]
    site.answer = lambda request: answers.pop(0)(request)
    assert place().fetch(scratch).read_bytes() == BODY


@pytest.mark.parametrize("drop", [half, half_in_chunks])
def test_a_truncated_file_is_deleted(site: Any, place: Any, scratch: Path, drop: Any) -> None:
    site.answer = drop
    refused(lambda: place().fetch(scratch), "connection failed .* also after retries", scratch)
    assert len(site.asked) == 3


@pytest.mark.parametrize("before", [lambda _: None, half], ids=["silence", "half"])
def test_a_stalled_server_times_out(site: Any, place: Any, scratch: Path, before: Any) -> None:
    def answer(request: Any) -> None:
        before(request)
        request.stall()

    site.answer = answer
    stalled = r"sent nothing for 0\.4 seconds.*data\.timeout"
    refused(lambda: place(timeout=0.4).fetch(scratch), stalled, scratch)
    assert len(site.asked) == 1


def test_a_file_with_a_content_length_above_the_limit_is_not_downloaded(
    site: Any, place: Any, scratch: Path
) -> None:
    site.answer = lambda request: request.send(200, BODY, content_length=str(2**40))
    refused(lambda: place(max_bytes=2**30).fetch(scratch), r"data\.max_bytes allows 1,073,741,824", scratch)


def test_an_endless_stream_is_aborted(site: Any, place: Any, scratch: Path) -> None:
    sent = []

    def answer(request: Any) -> None:
        request.send_response(200)
        request.end_headers()
        while not request.site.closing.is_set():
            try:
                sent.append(request.wfile.write(BODY))
            except OSError:
                return

    site.answer = answer
    refused(lambda: place(max_bytes=2**21).fetch(scratch), r"max_bytes allows 2,097,152", scratch)
    assert sum(sent) < 2**26  # what the sockets hold, and no more


def test_a_wrong_sha256_is_refused(site: Any, place: Any, scratch: Path) -> None:
    site.answer = lambda request: request.send(200, BODY)
    found = hashlib.sha256(BODY).hexdigest()
    match = f"SHA-256 of {site.url}/set.npz is {found}, but data.sha256 is {'0' * 64}"
    refused(lambda: place(sha256="0" * 64).fetch(scratch), match, scratch)


def test_unreachable_hosts(scratch: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = locate(Source(kind="npz", source=f"http://127.0.0.1:{free.getsockname()[1]}/set.npz"))
        refused(gone.identity, "connection failed .*refused")
        refused(lambda: gone.fetch(scratch), "connection failed .*refused", scratch)
    nowhere = locate(Source(kind="npz", source="https://no-such-host.invalid/set.npz"))
    refused(nowhere.identity, r"the host no-such-host\.invalid is unknown .*Correct data\.source")


def test_a_full_disk(site: Any, place: Any) -> None:
    site.answer = lambda request: request.send(200, BODY)
    refused(lambda: place().fetch(Path("/proc/scratch")), "Free disk space")


def test_secrets_in_a_url_are_not_in_messages_and_logs(
    site: Any, scratch: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    address = f"{site.url}/set.npz?key=hunter2#hunter2"
    place = locate(Source(kind="npz", source=address, timeout=0.2, sha256="0" * 64))
    look = locate(Source(kind="npz", source=address, timeout=0.2))
    for answer in (
        lambda request: request.send(200, BODY),
        lambda request: request.send(404),
        lambda request: request.send(503),
        lambda request: request.send(302, location="/next?token=hunter2"),
        lambda request: request.send(302, location="ftp://me:hunter2@host/?hunter2"),
        lambda request: request.send(302, location="http://me:hunter2@host..net/?hunter2"),
        lambda request: request.stall(),
        half,
    ):
        site.answer = answer
        said = refused(lambda: place.fetch(scratch), "127", scratch) + refused(look.identity, "127")
        assert "hunter2" not in said
    assert "hunter2" not in caplog.text


# Encryption


def test_an_untrusted_certificate(site: Any, secure: str, scratch: Path) -> None:
    site.answer = lambda request: request.send(200, BODY)
    place = locate(Source(kind="npz", source=f"{secure}/set.npz"))
    refused(lambda: place.fetch(scratch), r"TLS connection failed .*certificate.* SSL_CERT_FILE", scratch)
    assert site.asked == []


def test_https_is_not_redirected_to_http(
    site: Any, secure: str, authority: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    place = locate(Source(kind="npz", source=f"{secure}/set.npz"))
    site.answer = lambda request: request.send(200, BODY, etag='"1"')
    assert place.fetch(scratch).read_bytes() == BODY
    site.answer = lambda request: request.send(302, location=f"{site.url}/plain.npz?hunter2")
    (scratch / "set.npz").unlink()
    refused(
        lambda: place.fetch(scratch), r"redirects to http://127.*plain\.npz, which is not encrypted", scratch
    )
    refused(place.identity, "not encrypted")
    assert not any("plain" in line for line in site.asked)
