"""Pins servers to a version, and verifies them with the golden requests of the version.

Golden requests have a header, by which the server's metrics distinguish them from requests of clients.
"""

from dataclasses import dataclass

from modelyard.components import problems
from modelyard.components.artifacts import Golden, Outcome
from modelyard.components.errors import DamagedError, DeployError, ServeError
from modelyard.components.server import GOLDEN_HEADERS, Server, predict_one
from modelyard.components.store.models import ModelStore

GOLDEN_FILE = "golden.json"


@dataclass(frozen=True)
class PinnedVersion:
    """A version, the digest of its manifest, and its golden requests."""

    version: int
    digest: str
    golden: Golden


def pin_version(models: ModelStore, name: str, version: int) -> PinnedVersion:
    """Return a version with its golden requests, after verifying all files against the manifest.

    Raises:
        DeployError: a file is missing or damaged, or there are no golden requests.
        NotFoundError: there is no such version.
        StoreError: the store cannot be read.
    """
    try:
        digest, files = models.digest(name, version), models.manifest(name, version).files
        models.verify(name, version)
    except DamagedError as error:
        raise DeployError(str(error)) from error
    if GOLDEN_FILE not in files:
        raise DeployError(
            f"Version {version} of {name} has no {GOLDEN_FILE}, so its servers cannot be verified. "
            "`modelyard run` publishes a version with golden requests."
        )
    _, golden = models.read_record(name, version, GOLDEN_FILE, Golden, digest)
    if not golden.instances:
        raise DeployError(
            f"{GOLDEN_FILE} of version {version} of {name} has no requests. Publish a new version."
        )
    return PinnedVersion(version, digest, golden)


def hold_outcome(version: int, expected: int, champion: int | None) -> Outcome:
    """Return the outcome `hold` of a version, because the champion is not the expected one.

    `expected` and `champion` are versions, 0 for none; `champion` is None if it is unknown.
    """
    before = f"version {expected}" if expected else "none"
    change = "" if champion is None else f" from {before} to {f'version {champion}' if champion else 'none'}"
    return Outcome(
        version=version,
        decision="hold",
        reason=f"the champion changed{change} meanwhile; run again to compare with the new champion",
    )


def replay_golden_requests(server: Server, name: str, pin: PinnedVersion, tolerance: float) -> None:
    """Send all golden requests to a server and compare the predictions with those that evaluate recorded.

    Raises:
        DeployError: a prediction is missing, or differs by more than `tolerance`.
    """
    model, golden = f"{name}/versions/{pin.version}", pin.golden
    problem = problems.get_description(golden.problem)
    for number, instance in enumerate(golden.instances):
        try:
            difference = problem.difference(
                golden, number, predict_one(server, model, instance, GOLDEN_HEADERS)
            )
        except (ServeError, LookupError, TypeError, ValueError) as error:
            raise DeployError(
                f"Version {pin.version} of {name} returns no valid prediction for golden request "
                f"{number}: {error}. See the log of `modelyard serve {name} --version {pin.version}`."
            ) from error
        if not difference <= tolerance:  # also NaN
            raise DeployError(
                f"Version {pin.version} of {name} returns another prediction for golden request {number} "
                f"than evaluate: {problem.output} differ by {difference:.2g}, more than {tolerance:.2g} "
                "(rollout.golden_tolerance). Evaluate and serve with the same onnxruntime, then run again."
            )
