"""A source on the web: one file at an https:// or http:// URL.

Requests are retried after a lost connection or a temporary server error, but not after a timeout. User and
password come from ~/.netrc, or the file in NETRC. A redirect may lead to a URL with a token, so messages and
logs show URLs without their query.
"""

import hashlib
import logging
import os
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import httpx

from modelyard.components.errors import DataError, describe
from modelyard.components.machine import create_tls_context, find_certificates, find_proxy, is_loopback
from modelyard.components.source.checks import check_sha256, check_size, redact_url, safe_file_name
from modelyard.components.store.storage import Limits, Storage

RETRY_DELAYS = (0.5, 1.0, 2.0)
RETRYABLE_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
CHUNK_BYTES = 2**20
_NETRC_COMMENT = re.compile(r"(?ms)^macdef\s.*?(^\s*$|\Z)|(?<!\S)#(\s.*?)?$|^\s*#.*?$")
_NETRC_WORD = re.compile(r'"(?:\\.|[^"\\])*"|\S+')

T = TypeVar("T")


class HttpStorage(Storage):
    """The read-only storage of https:// and http:// URLs."""

    form = "https://host/path"
    writable = False

    def unreachable_from_pods(self, url: str) -> str | None:
        return "this machine itself" if is_loopback(url) else None

    def location(self, url: str, limits: Limits) -> "HttpLocation":
        return HttpLocation(url, limits)


class _RetryableStatusError(Exception):
    """The server returned a status that is usually temporary."""


class HttpLocation:
    """A file at an http:// or https:// URL; raise ValueError if the URL is malformed."""

    def __init__(self, url: str, limits: Limits) -> None:
        self._redacted_url, self._limits = redact_url(url), limits
        try:
            self._url = httpx.URL(url)
            host = self._url.host.encode("idna")
        except (httpx.InvalidURL, UnicodeError):
            host = b""
        if not host or b"%" in host or not 0 < (self._url.port or 80) < 2**16:
            raise ValueError("which is not a web URL")

    def identity(self) -> str:
        if self._limits.sha256:
            return self._limits.sha256
        # Two files may share an ETag, which servers derive from size and time: the URL distinguishes them.
        return f"{self._redacted_url} {self._with_retries(self._read_version)}"

    def fetch(self, scratch: Path) -> Path:
        target = scratch / safe_file_name(self._url.path)
        partial = target.with_name(f"{target.name}.partial")
        try:
            self._with_retries(lambda: self._download(partial))
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return target

    def _read_version(self) -> str:
        with self._connect() as client:
            response = client.head(self._url)
            if not _describe_rejection(response) and (version := _find_version(response.headers)):
                return version
            # Some servers respond to HEAD with an error or fewer headers.
            with client.stream("GET", self._url, headers={"Range": "bytes=0-0"}) as response:
                self._check_response(response)
                if version := _find_version(response.headers):
                    return version
        raise self._read_error(
            "the server sends neither an ETag nor a Last-Modified with a Content-Length, so a change of the "
            "file cannot be detected. Set data.sha256 to the file's SHA-256."
        )

    def _download(self, path: Path) -> None:
        digest, size = hashlib.sha256(), 0
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._connect() as client, client.stream("GET", self._url) as response, path.open("wb") as file:
            self._check_response(response)
            check_size(
                self._redacted_url, int(response.headers.get("content-length", 0)), self._limits.max_bytes
            )
            for chunk in response.iter_raw(CHUNK_BYTES):  # raw: a .tar.gz may be sent as a gzip-encoded .tar
                size += len(chunk)
                check_size(self._redacted_url, size, self._limits.max_bytes)
                digest.update(chunk)
                file.write(chunk)
        check_sha256(self._redacted_url, digest.hexdigest(), self._limits.sha256)

    def _connect(self) -> httpx.Client:
        logging.getLogger("httpx").setLevel(logging.WARNING)  # INFO logs full URLs
        return httpx.Client(
            auth=_find_credentials(self._url.host),
            headers={"Accept-Encoding": "identity"},
            transport=ProxiedTransport(),
            timeout=self._limits.timeout,
            follow_redirects=True,
            event_hooks={"request": [self._check_redirect]},
        )

    def _check_redirect(self, request: httpx.Request) -> None:
        if self._url.scheme == "https" and request.url.scheme != "https":
            target = redact_url(str(request.url))
            raise self._read_error(
                f"the server redirects to {target}, which is not encrypted. Use a URL that redirects only to https://."
            )

    def _check_response(self, response: httpx.Response) -> None:
        if response.status_code in RETRYABLE_STATUSES:
            raise _RetryableStatusError(response.status_code)
        if reason := _describe_rejection(response):
            raise self._read_error(reason)

    def _with_retries(self, operation: Callable[[], T]) -> T:
        with self._translate_errors():
            for delay in RETRY_DELAYS:
                try:
                    return operation()
                except (httpx.NetworkError, httpx.RemoteProtocolError, _RetryableStatusError):
                    time.sleep(delay)
            return operation()

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except _RetryableStatusError as error:
            raise self._read_error(
                f"the server returned {error}, even after retries. Try again later."
            ) from error
        except httpx.TimeoutException as error:
            raise self._read_error(
                f"the server sent nothing for {self._limits.timeout:g} seconds. Try again later, or raise "
                "data.timeout."
            ) from error
        except (httpx.RequestError, UnicodeError) as error:  # UnicodeError: a redirect to no host
            raise self._read_error(_describe_connection_failure(error, self._url.host)) from error
        except OSError as error:
            raise self._read_error(f"{error}. Free disk space on this machine.") from error

    def _read_error(self, reason: str) -> DataError:
        return DataError(f"Cannot read {self._redacted_url} (data.source): {reason}")


class ProxiedTransport(httpx.BaseTransport):
    """Sends each request, including redirected ones, directly or through the proxy for its URL."""

    def __init__(self) -> None:
        self._transports: dict[tuple[str, str | None], httpx.HTTPTransport] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx; raise ConfigError if the proxy or the trusted certificates are not usable."""
        scheme, proxy = key = request.url.scheme, find_proxy(str(request.url), "socksio")
        if key not in self._transports:
            authorities = find_certificates() if scheme == "https" else None
            verify = create_tls_context(authorities) if authorities else scheme == "https"
            self._transports[key] = httpx.HTTPTransport(verify=verify, trust_env=False, proxy=proxy)
        return self._transports[key].handle_request(request)

    def close(self) -> None:
        """Close all connections."""
        for transport in self._transports.values():
            transport.close()


def read_netrc() -> tuple[Path, str]:
    """Return the path and the text of ~/.netrc, or of the file in NETRC; empty if it is missing."""
    path = Path(os.environ.get("NETRC", "~/.netrc"))
    try:
        path = path.expanduser()
        return path, path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    except RuntimeError:  # no home directory
        return path, ""
    except OSError as error:
        raise DataError(
            f"Cannot read the passwords in {path}: {error.strerror}. Make the file readable, or set NETRC "
            "to another file."
        ) from error


def _find_credentials(host: str) -> httpx.BasicAuth | None:
    """Return the user and password for a host in ~/.netrc.

    Python's `netrc` rejects words that other programs write, such as `method`; they are ignored.
    """
    content = _NETRC_COMMENT.sub("", read_netrc()[1])
    words = (re.sub(r'\\(.)|"', r"\1", word) for word in _NETRC_WORD.findall(content))
    values, matches = dict[str, str](), False
    for word in words:
        if word in ("machine", "default"):
            if matches:
                break
            matches = word == "default" or next(words, "") == host
        elif word in ("login", "user", "account", "password"):
            value = next(words, "")
            values.update({word: value} if matches else {})
    user, password = values.get("login", values.get("user")), values.get("password")
    return None if user is None and password is None else httpx.BasicAuth(user or "", password or "")


def _find_version(headers: httpx.Headers) -> str | None:
    """Return the version of the file from the headers; None if they do not identify one."""
    if etag := headers.get("etag"):
        return str(etag)
    last_modified = headers.get("last-modified")
    size = headers.get("content-range", "").rpartition("/")[2] or headers.get("content-length")
    return f"{last_modified} {size}" if last_modified and size and size != "*" else None


def _describe_rejection(response: httpx.Response) -> str | None:
    """Return why a response is not the file; None if it is."""
    code = response.status_code
    if code in (401, 403, 407):
        return (
            f"the server denies access ({code}). Use a URL that this machine may read; a signed URL may "
            "have expired."
        )
    if code in (404, 410):
        return f"the server has no such file ({code}). Correct data.source."
    if not response.is_success:
        return f"the server returned {code}. Correct data.source."
    if response.headers.get("content-type", "").lower().startswith("text/html"):
        return (
            "the server sent a web page, such as a login or download page, instead of a file. Use the URL of "
            "the file itself."
        )
    return None


def _describe_connection_failure(error: Exception, host: str) -> str:
    reason = describe(error).rstrip(".")
    causes: list[BaseException] = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return f"the host {host} is unknown ({reason}). Correct data.source, or check the network."
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return (
            f"the TLS connection failed ({reason}). If your network has its own "
            "certificate authority, set SSL_CERT_FILE to its certificate."
        )
    return f"the connection failed ({reason}), even after retries. Check the network and data.source."
