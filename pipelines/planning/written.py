"""What the steps of a run wrote on this machine, in bytes, and what a plan says of the same steps."""

from collections.abc import Set
from pathlib import Path

from modelyard.components.artifacts import Record
from modelyard.pipelines.planning.storage import Storage


class Written(Record):
    """Bytes of the exported `model` and of all `artifacts`; None when nobody says, or nothing was written."""

    model: int | None = None
    artifacts: int | None = None


def written(artifacts: Path) -> Written:
    """Return what is in a run's folder of artifacts; what came from the cache is in another's."""
    model = next(iter(sorted(artifacts.glob("*/train/model"))), None)
    return Written(model=_size(model) if model else None, artifacts=_size(artifacts) or None)


def expected(storage: Storage, ran: Set[str]) -> Written:
    """Return what a plan says of the steps that ran and did not come from the cache."""
    sizes = {"ingest": storage.raw, "preprocess": storage.features, "train": storage.model}
    return Written(
        model=storage.model if "train" in ran else None,
        artifacts=sum(size for step, size in sizes.items() if step in ran) or None,
    )


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
