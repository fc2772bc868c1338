"""The work of the step `ingest`: whatever the source is becomes shards of one shape and dtype.

    ingest(Source(kind="digits").text(), fingerprint, "…/raw")

Each kind has a module that reads it; nothing read is ever executed, and no more than a few batches are in
memory at a time.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components import artifacts
from components.artifacts import Schema
from components.errors import DataError
from components.ingest import digits
from components.ingest.examples import Examples
from components.shards import ShardWriter
from components.source.settings import Source

log = logging.getLogger(__name__)


def ingest(source: str, fingerprint: str, raw: str) -> None:
    """Fetch the source, decode it and write `raw`.

    Args:
        source: Source as JSON.
        fingerprint: the data's, for the log.
        raw: directory to write: shards and schema.json.

    Raises:
        DataError: the source is missing, damaged, or not what the settings say.
    """
    with _open(Source.of(source)) as examples, artifacts.writing(Path(raw)) as directory:
        rows = {split: _write(directory, split, examples) for split in examples.splits}
        schema = Schema(
            shape=examples.shape,
            dtype=examples.dtype,
            classes=examples.classes,
            splits=rows,
            image=examples.image,
        )
        artifacts.write(directory / "schema.json", schema)
    log.info("rows: %s of %s %s, data %s", rows, examples.dtype, examples.shape, fingerprint)


@contextmanager
def _open(source: Source) -> Iterator[Examples]:
    """Give the examples of a source; what was fetched for them goes when the block ends."""
    if source.kind != "digits":
        raise DataError(f"data.kind {source.kind} cannot be read by this version; use digits.")
    yield digits.read()


def _write(directory: Path, split: str, examples: Examples) -> int:
    """Write one split, and return its rows."""
    with ShardWriter(directory, split, examples.shape, examples.dtype) as writer:
        for batch, labels in examples.splits[split]:
            writer.append(batch, labels)
    return writer.rows
