"""Verifying servers: the version that they are pinned to, its golden requests, and where they answer.

Requests are marked as golden: the server's metrics count them apart from those of clients.
"""

import json
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from modelyard.components import artifacts, problems
from modelyard.components.artifacts import Golden, Outcome
from modelyard.components.errors import DeployError
from modelyard.components.server import GOLDEN_HEADER
from modelyard.components.store.models import ModelStore

GOLDEN = "golden.json"
MARK = {GOLDEN_HEADER: "1"}
TIMEOUT = 30.0
QUOTED = 300  # bytes of an error that are shown


@dataclass(frozen=True)
class PinnedVersion:
    """A version that servers are pinned to: its number, the digest of its manifest, its golden requests."""

    version: int
    digest: str
    golden: Golden


def pin_version(models: ModelStore, name: str, version: int) -> PinnedVersion:
    """Return a version with its golden requests, verified against its manifest.

    Raises:
        DeployError: it has none, so a server of it cannot be verified.
        StoreError: it cannot be read, or is not what was published.
    """
    digest = models.digest(name, version)
    if GOLDEN not in models.manifest(name, version).files:
        raise DeployError(
            f"Version {version} of {name} has no {GOLDEN}, so a server of it cannot be verified and is not "
            "deployed. Publish it again with `modelyard run`, which writes one."
        )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "version"
        models.fetch(name, version, folder, only=[GOLDEN], digest=digest)
        golden = artifacts.read(folder / GOLDEN, Golden)
    if not golden.instances:
        raise DeployError(f"{GOLDEN} of version {version} of {name} holds no request. Publish it again.")
    return PinnedVersion(version, digest, golden)


def overtaken(version: int, expected: int | None, why: str) -> Outcome:
    """Return that `version` is held: the champion changed while it was compared with `expected` (0: none)."""
    compared_with = f"version {expected}" if expected else "no champion"
    return Outcome(
        version=version,
        decision="hold",
        reason=f"the champion changed while this run was compared with {compared_with} ({why}); run again to "
        "compare with the new one",
    )


class HttpTarget(Protocol):
    """Where a model's servers answer. A request that does not succeed raises DeployError."""

    def send(self, method: str, path: str, body: Any = None) -> bytes:
        """Send a request, with a JSON body if there is one, and return the answer."""


@dataclass(frozen=True)
class DirectTarget:
    """A server at a URL; each request has its own connection, which a Service sends to any pod."""

    url: str

    def send(self, method: str, path: str, body: Any = None) -> bytes:
        """See HttpTarget."""
        import httpx  # not needed by the process that leads a run

        logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs each of thousands of requests
        try:
            answer = httpx.request(method, f"{self.url}{path}", json=body, headers=MARK, timeout=TIMEOUT)
        except httpx.HTTPError as error:
            raise DeployError(f"{self.url} did not answer: {error}") from error
        return successful(self.url, answer.status_code, answer.content)


def replay(target: HttpTarget, name: str, pinned: PinnedVersion, tolerance: float) -> None:
    """Send each golden request to a server and compare its answer with what evaluate saw.

    Raises:
        DeployError: an answer is missing, or differs by more than `tolerance` relative to their scale.
    """
    path, golden = f"/v1/models/{name}/versions/{pinned.version}:predict", pinned.golden
    problem = problems.describe(golden.problem)
    for number, instance in enumerate(golden.instances):
        try:
            answer = json.loads(target.send("POST", path, {"instances": [instance]}))["predictions"][0]
            difference = problem.difference(golden, number, answer)
        except (DeployError, LookupError, TypeError, ValueError) as error:
            raise DeployError(
                f"Version {pinned.version} of {name} did not answer golden request {number} as it should "
                f"({error}). `modelyard serve` with --version shows what the server itself reports."
            ) from error
        if not difference <= tolerance:  # NaN is not
            raise DeployError(
                f"Version {pinned.version} of {name} answers golden request {number} otherwise than evaluate "
                f"saw: {problem.output} differ by {difference:.2g} and {tolerance:.2g} is allowed "
                "(rollout.golden_tolerance). Evaluate and serve with the same onnxruntime, then run again."
            )


def successful(target: str, status: int, answer: bytes) -> bytes:
    """Return an answer, or raise a DeployError if its status is an error."""
    if status >= 400:
        quoted = " ".join(answer[:QUOTED].decode(errors="replace").split())
        raise DeployError(f"{target} answered {status}: {quoted}")
    return answer
