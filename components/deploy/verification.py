"""Verifying servers: the version that they are pinned to, and its golden requests.

Requests are marked as golden: the server's metrics count them apart from those of clients.
"""

from dataclasses import dataclass

from modelyard.components import problems
from modelyard.components.artifacts import Golden, Outcome
from modelyard.components.errors import DamagedError, DeployError, ServeError
from modelyard.components.server import MARK, Server, predict_one
from modelyard.components.store.models import ModelStore

GOLDEN = "golden.json"


@dataclass(frozen=True)
class PinnedVersion:
    """A version that servers are pinned to: its number, the digest of its manifest, its golden requests."""

    version: int
    digest: str
    golden: Golden


def pin_version(models: ModelStore, name: str, version: int) -> PinnedVersion:
    """Return a version with its golden requests, once each of its files is what its manifest says.

    Raises:
        DeployError: a file is missing or damaged, or there are no golden requests to verify a server with.
        NotFoundError: there is no such version.
        StoreError: it cannot be read.
    """
    try:
        digest, files = models.digest(name, version), models.manifest(name, version).files
        models.verify(name, version)
    except DamagedError as error:
        raise DeployError(str(error)) from error
    if GOLDEN not in files:
        raise DeployError(
            f"Version {version} of {name} has no {GOLDEN}, so a server of it cannot be verified and is not "
            "deployed. Publish it again with `modelyard run`, which writes one."
        )
    _, golden = models.record(name, version, GOLDEN, Golden, digest)
    if not golden.instances:
        raise DeployError(f"{GOLDEN} of version {version} of {name} holds no request. Publish it again.")
    return PinnedVersion(version, digest, golden)


def hold_outcome(version: int, expected: int | None, why: str) -> Outcome:
    """Return that `version` is held: the champion changed while it was compared with `expected` (0: none)."""
    compared_with = f"version {expected}" if expected else "no champion"
    return Outcome(
        version=version,
        decision="hold",
        reason=f"the champion changed while this run was compared with {compared_with} ({why}); run again to "
        "compare with the new one",
    )


def replay_golden_requests(server: Server, name: str, pinned: PinnedVersion, tolerance: float) -> None:
    """Send each golden request to a server and compare its answer with what evaluate saw.

    Raises:
        DeployError: an answer is missing, or differs by more than `tolerance` relative to their scale.
    """
    model, golden = f"{name}/versions/{pinned.version}", pinned.golden
    problem = problems.describe(golden.problem)
    for number, instance in enumerate(golden.instances):
        try:
            difference = problem.difference(golden, number, predict_one(server, model, instance, MARK))
        except (ServeError, LookupError, TypeError, ValueError) as error:
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
