"""The serving platform of this machine, where `modelyard serve` follows the champion pointer.

Clients are never routed to a candidate. A candidate is verified in a separate server process.
"""

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar

from modelyard.components import lifeline, step
from modelyard.components.deploy.platforms.base import Check, PlatformConfig, Servers, Status, TrafficWindow
from modelyard.components.deploy.settings import Target
from modelyard.components.errors import ConfigError, DamagedError, DeployError, ServeError, StoreError
from modelyard.components.records import Failure
from modelyard.components.server import PORT, HttpServer, read_tokens, send

READY_TIMEOUT = 60.0


@dataclass
class LocalPlatform(PlatformConfig):
    """Serves a model on this machine."""

    deploy_command: ClassVar[str] = "models promote"
    follows_pointer: ClassVar[bool] = True

    id: str = ""
    location: str = "this machine"
    _candidate: Servers | None = None  # of this process only
    _token: str = ""

    @classmethod
    def open(cls, config: PlatformConfig) -> "LocalPlatform":
        return cls(**vars(config))

    @staticmethod
    def client_url(name: str, target: Target) -> str | None:  # noqa: ARG004
        """Return None: each `modelyard serve` has its own port."""
        return None

    def status(self, errors: bool = False) -> Status:
        """Return the state; stable is the champion or, with `errors`, the version that is served."""
        try:
            champion = self.models.champion(self.name)
        except DamagedError:
            if not errors:
                raise
            champion = None  # the caller reports it
        stable = self.describe_servers(champion.version, champion.digest) if champion else None
        if errors:
            return self._read_server_status(champion.version if champion else None)
        return Status(stable=stable, candidate=self._candidate, token=self._token)

    def _read_server_status(self, champion: int | None) -> Status:
        """Return the version that the running server serves, and why it does not serve the champion."""
        token_file = self.server.token_file
        token = read_tokens(token_file, "--token-file")[0] if token_file else None
        try:
            section = self.serving(champion)
        except StoreError:  # the manifest is damaged
            section = self.serving(None)
        try:
            server = self._find_server({"host": "127.0.0.1", "port": PORT, **section}, token)
            status, version = self._request_status(server)
        except (ConfigError, ServeError) as error:
            if self.server.url:
                raise
            return Status(errors=(str(error),))
        reason = status.get("error")
        errors = (f"The server at {server} still serves version {version}: {reason}",) if reason else ()
        stable = Servers(version=version, digest="", fingerprint="", image=str(server), desired=1, ready=1)
        return Status(stable=stable, stable_serves=True, errors=errors)

    def _find_server(self, section: dict[str, Any], token: str | None) -> HttpServer:
        """Return the server at the configured URL, or else that of a section `serving`."""
        host = f"[{section['host']}]" if ":" in section["host"] else section["host"]
        scheme = "https" if section.get("tls_cert") else "http"
        url = self.server.url or f"{scheme}://{host}:{section['port']}"
        if token is None and section.get("token_file"):
            token = read_tokens(section["token_file"])[0]
        certificate = None if self.server.url or self.server.ca else section.get("tls_cert")
        return HttpServer(
            url.rstrip("/"), proxies=True, token=token, ca=self.server.ca, certificate=certificate
        )

    def _request_status(self, server: HttpServer) -> tuple[dict[str, Any], int]:
        """Return the status that a server reports for the model, and the version that it serves.

        Raises:
            ServeError: there is no server of the model.
        """
        try:
            status = json.loads(send(server, "GET", f"/v1/models/{self.name}"))
            return status, int(status["model_version_status"][0]["version"])
        except (LookupError, TypeError, ValueError) as error:
            raise ServeError(
                f"{server} is not a modelyard server. Set the URL of the server with --url."
            ) from error

    def describe_servers(self, version: int, digest: str, as_last_served: bool = False) -> Servers:  # noqa: ARG002
        return Servers(version=version, digest=digest, fingerprint=digest)

    def claim(self, token: str, servers: Servers) -> None:
        self._candidate, self._token = servers, token

    def verify(self, servers: Servers, check: Check, token: str | None = None) -> int:
        """Verify the candidate in a separate server process; return the number of servers.

        Stable is not verified, because running servers verify a new champion themselves.
        """
        if token is None:
            return 0
        serving = self.serving(servers.version)
        with running_server(self.name, self.store, serving, servers.version) as server:
            check(server)
        return 1

    def open_window(self, token: str) -> TrafficWindow | None:  # noqa: ARG002
        """Return None: no client reaches a candidate."""
        return None

    def route_to_candidate(self, token: str) -> None:
        """Do nothing: no client reaches a candidate."""

    def reconcile(self, servers: Servers | None, observed: Servers | None) -> None:
        """Do nothing: running servers follow the pointer."""

    def withdraw(self, token: str | None = None) -> int | None:  # noqa: ARG002
        version, self._candidate = self._candidate.version if self._candidate else None, None
        return version

    def write_heartbeat(self, token: str) -> None:
        """Do nothing: a candidate ends with its process."""


@contextmanager
def running_server(
    name: str, store: str, serving: dict[str, Any], version: int | None = None
) -> Iterator[HttpServer]:
    """Start a server on a free port, yield it when it is ready, and stop it at the end.

    Without a version, the server serves the champion. Host, port and access log of the section `serving` are
    ignored. If this process is killed, the lifeline ends the server.

    Raises:
        DeployError: the server exited or was not ready in time; the message contains the reason.
    """
    settings = json.dumps({**serving, "host": "127.0.0.1", "port": 0, "access_log": False})
    command = [sys.executable, "-P", "-m", "modelyard.components.serve"]
    command += ["--name", name, "--store", store, "--serving", settings]
    command += [] if version is None else ["--version", str(version)]
    with (
        tempfile.TemporaryDirectory(prefix="modelyard-") as scratch,
        lifeline.hold(Path(scratch) / "lifeline") as variables,
        (Path(scratch) / "log").open("w+b") as log,
        _pipe() as (reader, writer),
    ):
        command += ["--ready-fd", str(writer.fileno())]
        failure = Path(scratch) / "failure.json"
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            pass_fds=[writer.fileno()],
            env={**os.environ, **variables, step.TERMINATION_LOG_VARIABLE: str(failure)},
        )
        writer.close()  # only the server has the other end, which closes when it exits
        try:
            url, path = _wait_for_url(process, reader, log, failure), serving.get("token_file")
            # the URL is from this process's own server, whose certificate may name another host
            yield HttpServer(url.rstrip("/"), token=read_tokens(path)[0] if path else None, verify=False)
        finally:
            process.kill()  # no client knows its URL: nothing to drain
            process.wait()


@contextmanager
def _pipe() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    read, write = os.pipe()
    with open(read, "rb") as reader, open(write, "wb") as writer:
        yield reader, writer


def _wait_for_url(process: subprocess.Popen[bytes], reader: IO[bytes], log: IO[bytes], failure: Path) -> str:
    """Return the URL that the server writes to the pipe when it is ready."""
    readable, _, _ = select.select([reader], [], [], READY_TIMEOUT)
    if line := reader.readline() if readable else b"":
        return str(json.loads(line)["url"])
    if readable:  # the server closed the pipe: it has exited
        exit_code = process.wait()
        record = Failure.parse(failure.read_bytes()) if exit_code and failure.exists() else None
        if record:
            raise DeployError(record.message)
        result = f"exited with code {exit_code}"
    else:
        result = f"was not ready within {READY_TIMEOUT:.0f} s"
    log.seek(0)
    tail = b" | ".join(log.read().splitlines()[-5:]).decode(errors="replace")
    raise DeployError(f"The server {result}. Its log ends with: {tail}")
