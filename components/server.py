"""The client side of a model server: port, headers, tokens, and functions that send requests."""

import json
import os
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from modelyard.components.errors import ClusterError, ConfigError, ServeError, describe
from modelyard.components.machine import create_tls_context, find_certificates, find_proxy

if TYPE_CHECKING:
    import ssl

PORT = 8501
"""The port of the container, and the default of `serving.port`."""
GOLDEN_HEADER = "x-modelyard-golden"
"""Marks golden requests, which the server's metrics count separately."""
TOKEN_HEADER = "x-modelyard-token"  # noqa: S105
"""Contains the token in requests through the API server of Kubernetes, which removes Authorization."""
MAX_TOKEN_FILE = 64 * 2**10
_TOKEN = re.compile(rb"[\w\-.~+/]+=*")  # RFC 6750, section 2.1
_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)

GOLDEN_HEADERS = {GOLDEN_HEADER: "1"}
NO_HEADERS: Mapping[str, str] = {}
TIMEOUT = 60.0
MAX_QUOTE = 500  # bytes of a response in an error message


class NoServerError(ClusterError, ServeError):
    """The API server of a cluster cannot proxy a request to a model server."""


class Server(Protocol):
    """A model server; `str()` returns its name for messages."""

    def request(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """Send a request; return the status and the body of the response.

        Raises:
            ServeError: there is no response.
            ClusterError: the API server in between does not respond, or refuses the request.
        """


@dataclass(frozen=True)
class HttpServer:
    """A server at a URL. Each request opens a connection, so that a Service distributes requests to its pods.

    Args:
        url: the URL, without a slash at its end.
        proxies: whether to use the proxies of the environment (HTTP_PROXY), except for this machine.
        token: the bearer token, if the server requires one.
        verify: whether to verify the certificate; False for pods, whose certificates do not contain their IP
            address.
        ca: file with the certificate authorities to trust; default: those of the system.
        certificate: PEM file whose first certificate the server must have, whatever host the certificate
            names; replaces `ca`.
    """

    url: str
    proxies: bool = False
    token: str | None = field(default=None, repr=False)
    verify: bool = True
    ca: str | None = None
    certificate: str | None = None

    def __str__(self) -> str:
        return self.url

    def request(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """See Server; redirects are not followed."""
        from http.client import HTTPException  # importing httpx takes longer than a request
        from urllib import request

        opener = request.OpenerDirector()
        https = request.HTTPSHandler(context=self._tls() if self.url.startswith("https:") else None)
        try:
            proxy = find_proxy(self.url) if self.proxies else None
            proxies = request.ProxyHandler({"http": proxy, "https": proxy} if proxy else {})
            for handler in (proxies, request.HTTPHandler(), https, request.UnknownHandler()):
                opener.add_handler(handler)
            headers = {"Content-Type": "application/json", **token_headers(self.token), **headers}
            http_request = request.Request(f"{self.url}{path}", body, headers, method=method)  # noqa: S310
            with opener.open(http_request, timeout=TIMEOUT) as response:
                return response.status, response.read()
        except (OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            reason = getattr(reason, "strerror", None) or reason
            hint = "Check the URL, and that a model server runs there (`modelyard serve`)."
            if "CERTIFICATE_VERIFY_FAILED" in str(reason):
                hint = "Set the PEM file of its CA with --ca, or with the variable SSL_CERT_FILE."
            raise ServeError(f"The request to {self} failed: {reason}. {hint}") from error

    def _tls(self) -> "ssl.SSLContext":
        import ssl

        if self.certificate:
            return _pin_certificate(self.certificate)
        if self.verify and self.ca:
            try:
                return create_tls_context(self.ca)
            except OSError as error:
                raise _unreadable("--ca", self.ca, error) from error
        if self.verify:
            authorities = find_certificates()
            return create_tls_context(authorities) if authorities else ssl.create_default_context()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context


def _pin_certificate(path: str) -> "ssl.SSLContext":
    """Return a client context that trusts only the first certificate in a file, with any host name.

    Raises:
        ConfigError: the file has no certificate.
    """
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the issuer need not be trusted
    try:
        match = _CERTIFICATE.search(Path(path).read_text(errors="replace"))
        context.load_verify_locations(cadata=match[0] if match else "")
    except (OSError, ValueError) as error:  # also ssl.SSLError
        raise ConfigError(
            f"serving.tls_cert is {path}, which has no readable certificate ({error}). Correct it, or "
            "set the CA with --ca."
        ) from error
    return context


def send(
    server: Server,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] = NO_HEADERS,
) -> bytes:
    """Send a request to a server and return the body of the response.

    Raises:
        ServeError: there is no response, or its status is not 2xx.
        ClusterError: see Server.
    """
    status, content = server.request(method, path, body, headers)
    if not 200 <= status < 300:
        raise ServeError(f"{server} returned status {status}: {_quote(content)}")
    return content


def _quote(content: bytes) -> str:
    """Return the error of modelyard's server, or the beginning of another response, as one line."""
    text = content.decode(errors="replace")
    if text.lstrip().startswith("<"):
        return "a web page. Check the URL."
    with suppress(ValueError, LookupError, TypeError):
        text = str(json.loads(content)["error"])
    return " ".join(text[:MAX_QUOTE].split())


def predict_one(server: Server, model: str, instance: Any, headers: Mapping[str, str] = NO_HEADERS) -> Any:
    """Return the prediction of a model (NAME or NAME/versions/NUMBER) for an example (JSON values).

    Raises:
        ServeError: there is no prediction.
        ClusterError: see Server.
    """
    body = json.dumps({"instances": [instance]}).encode()
    response = send(server, "POST", f"/v1/models/{model}:predict", body, headers)
    try:
        (prediction,) = json.loads(response)["predictions"]
    except (ValueError, LookupError, TypeError) as error:
        raise ServeError(f"{server} did not return a prediction: {describe(error)}") from error
    return prediction


def token_headers(token: str | None) -> dict[str, str]:
    """Return the request headers with a token; empty without a token."""
    return {"authorization": f"Bearer {token}", TOKEN_HEADER: token} if token else {}


def read_tokens(path: str, key: str = "serving.token_file") -> list[str]:
    """Return the tokens in the file that the configuration key `key` names; modelyard sends the first.

    Raises:
        ConfigError: the file cannot be read, is open to other users, or has no tokens.
    """
    check_private(key, path)
    try:
        with Path(path).open("rb") as file:
            return parse_tokens(file.read(MAX_TOKEN_FILE), f"{path} ({key})")
    except OSError as error:
        raise _unreadable(key, path, error) from error


def parse_tokens(text: bytes, origin: str) -> list[str]:
    """Return the tokens in a text, one per line.

    Raises:
        ConfigError: there is no token, or a line is not a token. The message does not quote the line.
    """
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    for number, line in lines:
        if not _TOKEN.fullmatch(line):
            raise ConfigError(
                f"Line {number} of {origin} is not a token. Write one token per line, of letters, digits and "
                "-._~+/, as from `openssl rand -hex 32`."
            )
    if not lines:
        raise ConfigError(f"There is no token in {origin}. Write one, as from `openssl rand -hex 32`.")
    return [line.decode() for _, line in lines]


def check_private(key: str, path: str) -> None:
    """Raise ConfigError unless a file with a secret exists and only its owner and group have access."""
    if check_regular(key, path).st_mode & (stat.S_IROTH | stat.S_IWOTH):
        raise ConfigError(f"Every user has access to {path} ({key}). Run `chmod o-rwx {path}`.")


def check_regular(key: str, path: str) -> os.stat_result:
    """Return the stat result of a regular file; raise ConfigError for others, such as a FIFO."""
    try:
        status = Path(path).stat()
    except OSError as error:
        raise _unreadable(key, path, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{key} is {path}, which is not a regular file. Correct the path, or omit it.")
    return status


def _unreadable(key: str, path: str, error: OSError) -> ConfigError:
    return ConfigError(
        f"{key} is {path}, which cannot be read: {error.strerror or error}. Correct the path or its "
        "permissions, or omit it."
    )
