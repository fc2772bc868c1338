"""A real server on this machine, in another process, while a `with` block lasts.

with local.running_server(name, store, serving, version=7) as url:
    httpx.post(f"{url}/v1/models/{name}:predict", json=...)
"""

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from modelyard.components import lifeline
from modelyard.components.errors import DeployError

READY_TIMEOUT = 60.0


@contextmanager
def running_server(name: str, store: str, serving: str, version: int | None = None) -> Iterator[str]:
    """Start the server on a free port, give its URL when it is ready, stop it at the end.

    The server follows this process's lifeline: it cannot outlive it, however this process ends.

    Args:
        name: the model's name.
        store: `store` section as JSON.
        serving: `serving` section as JSON; its host and port are not used.
        version: which to serve; the champion when None.

    Raises:
        DeployError: the server ended, or was not ready in time; with the last lines of its log.
    """
    local = json.dumps({**json.loads(serving), "host": "127.0.0.1", "port": 0})
    command = [sys.executable, "-m", "modelyard.components.serve"]
    command += ["--name", name, "--store", store, "--serving", local]
    command += [] if version is None else ["--version", str(version)]
    with (
        tempfile.TemporaryDirectory() as scratch,
        lifeline.hold(Path(scratch) / "lifeline") as variables,
        (Path(scratch) / "log").open("w+b") as log,
    ):
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, env={**os.environ, **variables}
        )
        try:
            yield _url(process, log)
        finally:
            process.kill()  # no client knows its URL, so there is nothing to drain
            process.wait()


def _url(process: subprocess.Popen[bytes], log: IO[bytes]) -> str:
    """Wait for the server's ready line and return the URL that it names."""
    assert process.stdout  # noqa: S101 - a pipe was asked for
    deadline = time.monotonic() + READY_TIMEOUT
    while time.monotonic() < deadline:
        readable, _, _ = select.select([process.stdout], [], [], deadline - time.monotonic())
        line = process.stdout.readline() if readable else b""
        if line.startswith(b"{"):
            return str(json.loads(line)["url"])
        if not line:
            break
    log.seek(0)
    tail = b" | ".join(log.read().splitlines()[-5:]).decode(errors="replace")
    ended = process.poll()
    what = f"was not ready within {READY_TIMEOUT:.0f} s" if ended is None else f"ended with {ended}"
    raise DeployError(f"The server {what}. It said: {tail}")
