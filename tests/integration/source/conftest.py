"""A real HTTP server whose responses a test defines."""

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from modelyard.components.source import web


class Request(BaseHTTPRequestHandler):
    """A request, with methods to respond."""

    web_server: "WebServer"

    def answer(self) -> None:
        self.close_connection = True
        self.web_server.requests.append(f"{self.command} {self.path}")
        self.web_server.answer(self)

    do_GET = do_HEAD = answer  # noqa: N815

    def send(self, code: int, body: bytes = b"", **headers: str) -> None:
        """Send a status, headers (`last_modified` is Last-Modified) and a body."""
        self.send_response(code)
        for name, value in ({"content_length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def stall(self) -> None:
        """Block until the test ends."""
        self.wfile.flush()
        self.web_server.closing.wait(10)

    def log_message(self, *_: object) -> None:
        pass


@dataclass
class WebServer:
    """URL, handler and recorded requests of the server."""

    url: str = ""
    answer: Callable[[Request], None] = lambda request: request.send(404)
    requests: list[str] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serving(web_server: WebServer, certificate: Path | None = None) -> Iterator[int]:
    """Run the server; yield its port."""
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), type("BoundRequest", (Request,), {"web_server": web_server})
    ) as server:
        server.daemon_threads = True
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
            server.handle_error = lambda *_: None  # a client that hangs up  # type: ignore[method-assign]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_port
        web_server.closing.set()
        server.shutdown()


@pytest.fixture
def web_server() -> Iterator[WebServer]:
    server = WebServer()
    with serving(server) as port:
        server.url = f"http://127.0.0.1:{port}"
        yield server


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    """A self-signed certificate for 127.0.0.1; server.pem in the same folder has its private key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )
    (tmp_path / "ca.pem").write_bytes(certificate)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "server.pem").write_bytes(private + certificate)
    return tmp_path / "ca.pem"


@pytest.fixture
def https_url(web_server: WebServer, ca_file: Path) -> Iterator[str]:
    """The https:// URL of the same server."""
    with serving(web_server, ca_file.with_name("server.pem")) as port:
        yield f"https://127.0.0.1:{port}"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "RETRY_DELAYS", (0.0, 0.0))
