"""A model's server, for its clients and those who deploy it: its port, headers and tokens, requests to it."""

import json
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from modelyard.components.errors import ClusterError, ConfigError, ServeError
from modelyard.components.machine import certificates, proxy_for, tls_context

if TYPE_CHECKING:
    import ssl

PORT = 8501
"""Of a server's container, and the default of `serving.port`."""
GOLDEN_HEADER = "x-modelyard-golden"
"""Marks a golden request: the server's metrics count it apart from those of clients."""
TOKEN_HEADER = "x-modelyard-token"  # noqa: S105
"""Carries a token where Authorization cannot: Kubernetes' API server removes that from what it proxies."""
MAX_TOKEN_FILE = 64 * 2**10
_TOKEN = re.compile(rb"[\w\-.~+/]+=*")  # RFC 6750, section 2.1

GOLDEN_HEADERS = {GOLDEN_HEADER: "1"}
NO_HEADERS: Mapping[str, str] = {}
TIMEOUT = 60.0
MAXIMUM_QUOTE = 500  # bytes of an error that are shown


class NoServerError(ClusterError, ServeError):
    """The API server of a cluster cannot pass a request on to a server."""


class Server(Protocol):
    """Where a model's server answers; as a string, its name for people."""

    def request(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """Send a request; return the status and the body of the answer.

        Raises:
            ServeError: there is no answer.
            ClusterError: the API server in between does not answer, or does not allow it.
        """


@dataclass(frozen=True)
class HttpServer:
    """A server at a URL; each request has its own connection, which a Service sends to any pod.

    Args:
        url: of the server, without a slash at its end.
        proxies: whether the proxies of the environment (HTTP_PROXY) are used; never on this machine.
        token: what it asks for; None if for nothing.
        verify: whether its certificate is verified; not of a pod, whose IP address no certificate has.
        ca: file with the certificates of the authorities to trust; the system's when None.
    """

    url: str
    proxies: bool = False
    token: str | None = field(default=None, repr=False)
    verify: bool = True
    ca: str | None = None

    def __str__(self) -> str:
        return self.url

    def request(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """See Server; a redirect is not followed."""
        from http.client import HTTPException  # the import of httpx takes longer than a request
        from urllib import request

        opener = request.OpenerDirector()
        https = request.HTTPSHandler(context=self._tls() if self.url.startswith("https:") else None)
        try:
            proxy = proxy_for(self.url) if self.proxies else None
            proxies = request.ProxyHandler({"http": proxy, "https": proxy} if proxy else {})
            for handler in (proxies, request.HTTPHandler(), https, request.UnknownHandler()):
                opener.add_handler(handler)
            headers = {"Content-Type": "application/json", **token_headers(self.token), **headers}
            one = request.Request(f"{self.url}{path}", body, headers, method=method)  # noqa: S310
            with opener.open(one, timeout=TIMEOUT) as answer:
                return answer.status, answer.read()
        except (OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise ServeError(
                f"No answer from {self}: {reason}. Is a model server running there (`modelyard serve`), and "
                "is the address right?"
            ) from error

    def _tls(self) -> "ssl.SSLContext":
        import ssl

        if self.verify:
            authorities = self.ca or certificates()
            return tls_context(authorities) if authorities else ssl.create_default_context()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context


def send(
    server: Server,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] = NO_HEADERS,
) -> bytes:
    """Send a request to a server and return the body of its answer.

    Raises:
        ServeError: there is none, or its status is not one of success.
        ClusterError: see Server.
    """
    status, answer = server.request(method, path, body, headers)
    if not 200 <= status < 300:
        quoted = " ".join(answer[:MAXIMUM_QUOTE].decode(errors="replace").split())
        raise ServeError(f"{server} answered {status}: {quoted}")
    return answer


def predict_one(server: Server, model: str, instance: Any, headers: Mapping[str, str] = NO_HEADERS) -> Any:
    """Return a server's prediction for one example.

    Args:
        server: the server.
        model: the model's name, or NAME/versions/NUMBER.
        instance: the example, as JSON.
        headers: of the request.

    Raises:
        ServeError: there is none.
        ClusterError: see Server.
    """
    body = json.dumps({"instances": [instance]}).encode()
    answer = send(server, "POST", f"/v1/models/{model}:predict", body, headers)
    try:
        (prediction,) = json.loads(answer)["predictions"]
    except (ValueError, LookupError, TypeError) as error:
        raise ServeError(f"{server} did not answer a prediction: {error!r}") from error
    return prediction


def token_headers(token: str | None) -> dict[str, str]:
    """Return the headers that carry a token; none without one."""
    return {"authorization": f"Bearer {token}", TOKEN_HEADER: token} if token else {}


def read_tokens(path: str, key: str = "serving.token_file") -> list[str]:
    """Return the tokens of a file that `key` names; our own clients send the first.

    Raises:
        ConfigError: it cannot be read, other users can read it, or it has no tokens.
    """
    check_private(key, path)
    try:
        with Path(path).open("rb") as file:
            return parse_tokens(file.read(MAX_TOKEN_FILE), f"{key}, {path},")
    except OSError as error:
        raise _unreadable(key, path, error) from error


def parse_tokens(text: bytes, origin: str) -> list[str]:
    """Return the tokens, one a line; blank lines are skipped.

    Raises:
        ConfigError: there is none, or a line is not a token. The message does not quote it.
    """
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    for number, line in lines:
        if not _TOKEN.fullmatch(line):
            raise ConfigError(
                f"{origin} has something else than a token in line {number}. Write one token a line, of "
                "letters, digits and -._~+/, such as `openssl rand -hex 32` makes."
            )
    if not lines:
        raise ConfigError(f"{origin} has no token. Write one, such as `openssl rand -hex 32` makes.")
    return [line.decode() for _, line in lines]


def check_private(key: str, path: str) -> None:
    """Check that a file with a secret exists, and that not every user of the machine can read or write it.

    Raises:
        ConfigError: it does not, or they can.
    """
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:
        raise _unreadable(key, path, error) from error
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        raise ConfigError(f"{key}, {path}, is open to every user of this machine. Run `chmod o-rwx {path}`.")


def _unreadable(key: str, path: str, error: OSError) -> ConfigError:
    return ConfigError(
        f"{key} is {path}, which cannot be read: {error.strerror or error}. Name a file that can be read, or "
        "remove the key."
    )
