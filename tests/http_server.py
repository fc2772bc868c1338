"""HTTP servers in threads, whose handlers the tests define."""

import ssl
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Handler(BaseHTTPRequestHandler, ABC):
    """A handler that logs nothing; `handle_request` handles a request of any method."""

    @abstractmethod
    def handle_request(self) -> None: ...

    def handle_any(self) -> None:
        self.handle_request()

    do_GET = do_HEAD = do_POST = do_PATCH = do_DELETE = handle_any  # noqa: N815

    def read_body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def respond(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send a status, headers (`retry_after` is Retry-After) and a body."""
        self.send_response(status)
        for name, value in ({"content_length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve(handler: Any, host: str = "127.0.0.1", certificate: Path | None = None) -> Iterator[str]:
    """Run a server on a free port, with TLS if there is a file with certificate and key; yield its URL."""
    with ThreadingHTTPServer((host, 0), handler) as server:
        server.daemon_threads = True
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
            server.handle_error = lambda *_: None  # a client that closes the connection
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http{'s' if certificate else ''}://{host}:{server.server_port}"
        finally:
            server.shutdown()
