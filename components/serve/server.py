"""Starts the server, and drains it after a signal.

    serve("digits", store, serving)             # follows the champion pointer
    serve("digits", store, serving, version=7)  # serves a pinned version

On a cluster, a version is also pinned to the digest of its manifest.
"""

import asyncio
import ctypes
import errno
import gc
import json
import logging
import os
import resource
import signal
import socket
import sys
import time
from contextlib import suppress
from functools import partial
from types import FrameType

from uvicorn.config import Config
from uvicorn.server import Server as UvicornServer

from modelyard.components.errors import ServeError
from modelyard.components.serve.access import Access
from modelyard.components.serve.app import App
from modelyard.components.serve.connection import TLS_CONNECTION_MEMORY, connection_class
from modelyard.components.serve.limits import LARGE_BODY
from modelyard.components.serve.model import ChampionFollower, Predictor, load
from modelyard.components.serve.settings import Serving
from modelyard.components.store.models import open_store
from modelyard.components.store.settings import Store

BACKLOG = 512  # pending connections, which are accepted in 0.1 ms each
M_MMAP_THRESHOLD = -3  # malloc.h: minimum bytes of a block that free() returns to the system
KEEP_ALIVE = 30  # seconds
RESERVED_FILES = 128  # open files of the server that are not connections


def serve(
    name: str,
    store: Store,
    serving: Serving,
    version: int | None = None,
    digest: str | None = None,
    ready_fd: int = 1,
) -> None:
    """Serve a model until SIGTERM or SIGINT; write a JSON line with the URL to `ready_fd` when ready.

    Without a version, the server follows the champion pointer. `digest` is the expected SHA-256 of the
    version's manifest; None skips this check.

    Raises:
        ConfigError: the token, certificate or key file is invalid.
        ServeError: the port is not available, or the version cannot be loaded.
        NotFoundError: no such version, or no champion.
        StoreError: the store cannot be read, or the version is damaged.
    """
    _prepare_process()
    access, models = Access(serving), open_store(store)
    with _bind(serving.host, serving.port) as listener:
        if version is None:
            champion = models.require_champion(name)
            predictor = load(models, name, champion.version, champion.digest, serving.threads)
        else:
            predictor = load(models, name, version, digest, serving.threads)
        _listen(listener, serving.host, serving.port)
        app = App(predictor, serving, access)
        _limit_files(app.limits.connections, tls=bool(serving.tls_cert))
        follower = ChampionFollower(
            models,
            predictor,
            serving.poll_interval,
            serving.threads,
            app.set_predictor,
            app.set_champion_status,
        )
        if version is None:
            follower.start()
        gc.freeze()  # collections skip the existing objects, which the server needs until it ends
        gc.enable()
        Server(app, serving, access, predictor, ready_fd).run(sockets=[listener])
        follower.stop()
        if app.executing:  # after the drain timeout; Python would wait for the threads
            logging.shutdown()
            os._exit(0)


def _prepare_process() -> None:
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a closed terminal does not end the server
    with suppress(OSError, AttributeError):  # only glibc has mallopt, and by default keeps large freed blocks
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BODY)


class Server(UvicornServer):
    """uvicorn's server, which writes a ready line, and exits with 0 after a drain."""

    def __init__(
        self, app: App, serving: Serving, access: Access, predictor: Predictor, ready_fd: int
    ) -> None:
        tls = access.create_tls_context()
        super().__init__(
            Config(
                app,
                http=connection_class(
                    serving.body_timeout, app.limits.connections, tls is not None, access.log_refusal
                ),
                ssl_context_factory=(lambda *_: tls) if tls else None,
                loop="uvloop",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE,
                timeout_graceful_shutdown=serving.drain_timeout,  # type: ignore[arg-type]
            )
        )
        self._app, self._access, self._predictor, self._linger = app, access, predictor, serving.linger
        self._next_poll, self._poll_interval = 0.0, serving.poll_interval
        self._end: float | None = None
        self._ready_fd = ready_fd
        self._handshake_timeout = serving.body_timeout

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, and write the ready line."""
        if self.config.is_ssl:  # uvicorn has no setting for the timeout
            loop = asyncio.get_running_loop()
            loop.create_server = partial(  # type: ignore[method-assign]
                loop.create_server, ssl_handshake_timeout=self._handshake_timeout
            )
        await super().startup(sockets)
        host, port = (sockets or [])[0].getsockname()[:2]
        scheme = "https" if self.config.is_ssl else "http"
        ready = {
            "event": "ready",
            "name": self._predictor.name,
            "version": self._predictor.version,
            "url": f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}",
        }
        os.write(self._ready_fd, json.dumps(ready).encode() + b"\n")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Linger, then drain; a second signal skips the linger, a second Ctrl-C exits at once.

        uvicorn's method would raise the signal again at the end.
        """
        is_second, self._app.draining = self._app.draining, True
        self.force_exit = is_second and sig == signal.SIGINT
        self._end = time.monotonic() + (0.0 if is_second else self._linger)

    async def on_tick(self, counter: int) -> bool:
        """Reload changed tokens and certificates; return whether to stop accepting requests."""
        if (now := time.monotonic()) >= self._next_poll:
            self._next_poll = now + self._poll_interval
            self._access.refresh()
        lingered = self._end is not None and time.monotonic() >= self._end
        return await super().on_tick(counter) or lingered


def _limit_files(memory: int, *, tls: bool) -> None:
    """Set the limit of open files: the maximum, or with TLS twice the connections that fit in `memory`.

    uvicorn receives a TLS connection after its handshake. Until then, only the number of open files limits
    the memory of connections; libuv closes further connections at once.
    """
    _, maximum = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = RESERVED_FILES + 2 * memory // TLS_CONNECTION_MEMORY if tls else maximum
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(files, maximum), maximum))


def _bind(host: str, port: int) -> socket.socket:
    """Return a bound socket, which listens after the model is loaded."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; for clients that do not read
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, KEEP_ALIVE * 1000)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise _listen_error(host, port, error) from error
    return listener


def _listen(listener: socket.socket, host: str, port: int) -> None:
    """Start listening; fails if another server bound the same port and was ready first."""
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        raise _listen_error(host, port, error) from error


def _listen_error(host: str, port: int, error: OSError) -> ServeError:
    remedy = "Set another host with --host or serving.host, or another port with --port or serving.port."
    if error.errno == errno.EADDRINUSE:
        remedy = "Stop the process that uses it, or set another --port or serving.port (0: a free port)."
    return ServeError(f"Cannot listen on port {port} of {host}: {error.strerror or error}. {remedy}")
