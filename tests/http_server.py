"""HTTP servers in threads, whose handlers the tests define."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """A handler that logs nothing; `handle_request` handles a request of any method."""

    def handle_request(self) -> None:
        raise NotImplementedError

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
def serve(handler: Any, host: str = "127.0.0.1") -> Iterator[str]:
    """Run a server on a free port; yield its URL."""
    with ThreadingHTTPServer((host, 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://{host}:{server.server_port}"
        finally:
            server.shutdown()
