"""Starts the server: binds, loads, serves, follows the champion, drains.

serve("digits", store, serving)                follows the champion
serve("digits", store, serving, version=7)     pinned, on a cluster by its digest as well
"""

import ctypes
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
from types import FrameType

import uvicorn

from modelyard.components.errors import ServeError
from modelyard.components.serve.access import Access
from modelyard.components.serve.app import App
from modelyard.components.serve.connection import connection_class
from modelyard.components.serve.limits import LARGE_BODY
from modelyard.components.serve.model import ChampionFollower, Predictor, load
from modelyard.components.serve.settings import Serving
from modelyard.components.store.models import ModelStore, open_store
from modelyard.components.store.settings import Store

BACKLOG = 512  # connections; all that wait are accepted at once, which takes 0.1 ms each
M_MMAP_THRESHOLD = -3  # malloc.h: bytes of a block that is given back to the system when it is freed
KEEP_ALIVE = 30  # seconds that an idle connection stays open


def serve(
    name: str,
    store: Store,
    serving: Serving,
    version: int | None = None,
    digest: str | None = None,
    ready_fd: int = 1,
) -> None:
    """Serve a model until SIGTERM or SIGINT; one JSON line says when and where it is ready.

    Args:
        name: the model's name.
        store: where the model lives.
        serving: where to listen, and the limits.
        version: the version to serve; None follows the champion.
        digest: what the SHA-256 of the version's manifest must be; not checked when None.
        ready_fd: the file descriptor that gets the line; stdout if not given.

    Raises:
        ConfigError: the files of tokens, certificate or key cannot be used.
        ServeError: the address cannot be listened on, or the version cannot be loaded.
        NotFoundError: no such version, or no champion.
        StoreError: the store cannot be read, or the version is not what was published.
    """
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a terminal that closes does not end a server
    _, maximum = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (maximum, maximum))  # for connections that send nothing
    with suppress(OSError, AttributeError):  # not glibc; else large blocks that are freed would stay here
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BODY)
    access, models = Access(serving), open_store(store)
    with _bind(serving.host, serving.port) as listener:
        predictor = _load_first(models, name, version, digest, serving.threads)
        _listen(listener, serving.host, serving.port)
        app = App(predictor, serving, access)
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
        gc.collect()
        gc.freeze()  # what is there now stays: a collection need not look at it again
        gc.enable()
        Server(app, serving, access, predictor, ready_fd).run(sockets=[listener])
        follower.stop()
        if app.executing:  # beyond the drain's limit; Python would wait for it
            logging.shutdown()
            os._exit(0)


class Server(uvicorn.Server):
    """uvicorn's server: says when it is ready, drains on a signal, and then ends with exit code 0."""

    def __init__(
        self, app: App, serving: Serving, access: Access, predictor: Predictor, ready_fd: int
    ) -> None:
        tls = access.tls_context()
        super().__init__(
            uvicorn.Config(
                app,
                http=connection_class(serving.body_timeout, app.limits.connections, access.log_refusal),
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

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
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
        """Linger, then drain; a second signal does not linger, a second Ctrl-C leaves at once.

        uvicorn would raise the signal again at the end.
        """
        again, self._app.draining = self._app.draining, True
        self.force_exit = again and sig == signal.SIGINT
        self._end = time.monotonic() + (0.0 if again else self._linger)

    async def on_tick(self, counter: int) -> bool:
        """Read tokens and certificate again if they changed; say whether to take no more requests."""
        if (now := time.monotonic()) >= self._next_poll:
            self._next_poll = now + self._poll_interval
            self._access.refresh()
        lingered = self._end is not None and time.monotonic() >= self._end
        return await super().on_tick(counter) or lingered


def _bind(host: str, port: int) -> socket.socket:
    """Return a socket at the address; it listens only when the model is loaded."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; of its connections, for clients that do not read
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, KEEP_ALIVE * 1000)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise _listen_error(host, port, error) from error
    return listener


def _listen(listener: socket.socket, host: str, port: int) -> None:
    """Take connections; fails when another server bound the same port and was ready first."""
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        raise _listen_error(host, port, error) from error


def _listen_error(host: str, port: int, error: OSError) -> ServeError:
    return ServeError(
        f"Port {port} of {host} cannot be listened on: {error.strerror or error}. Stop what uses it, or "
        "choose another with --port or serving.port (0 takes a free one), or --host or serving.host."
    )


def _load_first(
    models: ModelStore, name: str, version: int | None, digest: str | None, threads: int
) -> Predictor:
    """Load the version to begin with: `version`, or the champion when None."""
    if version is not None:
        return load(models, name, version, digest, threads)
    champion = models.require_champion(name)
    return load(models, name, champion.version, champion.digest, threads)
