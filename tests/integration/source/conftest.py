"""An HTTP server whose responses a test defines."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from modelyard.components.source import web
from tests.access import make_certificate
from tests.http_server import Handler, serve


class Request(Handler):
    """A request, with methods to respond."""

    web_server: "WebServer"

    def handle_request(self) -> None:
        self.close_connection = True
        self.web_server.requests.append(f"{self.command} {self.path}")
        self.web_server.handle(self)

    def stall(self) -> None:
        """Block until the test ends."""
        self.wfile.flush()
        self.web_server.closing.wait(10)


@dataclass
class WebServer:
    """The URL, handler and requests of the server."""

    url: str = ""
    handle: Callable[[Request], None] = lambda request: request.respond(404)
    requests: list[str] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)


@contextmanager
def run(web_server: WebServer, certificate: Path | None = None) -> Iterator[str]:
    """Run the server; yield its URL."""
    handler = type("BoundRequest", (Request,), {"web_server": web_server})
    with serve(handler, certificate=certificate) as url:
        yield url
        web_server.closing.set()


@pytest.fixture
def web_server() -> Iterator[WebServer]:
    server = WebServer()
    with run(server) as server.url:
        yield server


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    """A self-signed certificate for 127.0.0.1; server.pem in the same folder has its private key."""
    certificate, private_key = make_certificate()
    (tmp_path / "ca.pem").write_bytes(certificate)
    (tmp_path / "server.pem").write_bytes(private_key + certificate)
    return tmp_path / "ca.pem"


@pytest.fixture
def https_url(web_server: WebServer, ca_file: Path) -> Iterator[str]:
    """The https:// URL of `web_server`."""
    with run(web_server, ca_file.with_name("server.pem")) as url:
        yield url


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "RETRY_DELAYS", (0.0, 0.0))
