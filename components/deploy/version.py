"""A version as a rollout needs it: its number, its digest, and the golden requests that it must answer."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from modelyard.components import artifacts
from modelyard.components.artifacts import Golden
from modelyard.components.errors import DeployError
from modelyard.components.store.models import ModelStore

GOLDEN = "golden.json"


@dataclass(frozen=True)
class Served:
    """A version of a model that servers are pinned to."""

    version: int
    digest: str
    golden: Golden

    @property
    def identity(self) -> tuple[int, str]:
        """Number and digest."""
        return self.version, self.digest


def pinned(models: ModelStore, name: str, version: int) -> Served:
    """Return a version with its golden requests, verified against its manifest.

    Raises:
        DeployError: it has none: what a server of it must answer is not known.
        StoreError: it cannot be read, or is not what was published.
    """
    digest = models.digest(name, version)
    if GOLDEN not in models.manifest(name, version).files:
        raise DeployError(
            f"Version {version} of {name} has no {GOLDEN}, so a server of it cannot be verified and is not "
            "deployed. `modelyard run` publishes versions with one; publish it anew."
        )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "version"
        models.fetch(name, version, folder, only=[GOLDEN], digest=digest)
        golden = artifacts.read(folder / GOLDEN, Golden)
    if not golden.instances:
        raise DeployError(f"{GOLDEN} of version {version} of {name} has no request in it. Publish it anew.")
    return Served(version, digest, golden)
