"""The work of the step `ingest`: whatever the source is becomes shards of one shape and dtype.

    ingest(IngestSpec(source=Source(kind="digits")), fingerprint, "…/raw")

Each kind has a module that reads it, a few batches at a time. Nothing that is read is executed, and nothing
but the shards is written.
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path

from modelyard.components import artifacts
from modelyard.components.artifacts import Schema
from modelyard.components.errors import DataError
from modelyard.components.ingest.examples import Examples
from modelyard.components.ingest.spec import IngestSpec
from modelyard.components.shards import ShardWriter, prefetched
from modelyard.components.source.checks import redact_url
from modelyard.components.source.location import locate
from modelyard.components.source.settings import KINDS, Source
from modelyard.components.step import log
from modelyard.components.store.storage import is_path


def ingest(spec: IngestSpec, fingerprint: str, raw: str) -> None:
    """Fetch the source, decode it and write `raw`.

    Args:
        spec: where the examples come from and what they are.
        fingerprint: a key for the data, for the log.
        raw: directory to write: shards and schema.json.

    Raises:
        DataError: the source is missing, damaged, or not what the settings say.
    """
    settings = spec.source
    with tempfile.TemporaryDirectory() as scratch, artifacts.writing(Path(raw)) as directory:
        path = locate(settings).fetch(Path(scratch))
        with _by_address(path, settings):
            examples = _read(path, settings)
            rows = _write(directory, examples)
        schema = Schema(
            shape=examples.shape,
            dtype=examples.dtype,
            problem=settings.problem,
            names=examples.names,
            splits=rows,
            image=examples.image,
            notes=tuple(examples.notes),  # all that are written while the batches are read
            skipped=tuple(examples.skipped),
        )
        artifacts.write(directory / "schema.json", schema)
    for note in examples.notes:
        log(note)
    log(f"rows: {rows} of {examples.dtype} {examples.shape}, data {fingerprint}")


@contextmanager
def _by_address(path: Path, source: Source) -> Iterator[None]:
    """Call what was downloaded by its address in an error, and not by where it lies for a while."""
    try:
        yield
    except DataError as error:
        if is_path(source.source or ""):
            raise
        raise DataError(str(error).replace(str(path), redact_url(str(source.source)))) from error


def _read(path: Path, source: Source) -> Examples:
    """Return the examples in the local file or directory; a reader is imported when it is needed."""
    reader = import_module(f"{__package__}.{KINDS[source.kind].reader}")
    examples: Examples = reader.read(path, source)
    return examples


def _write(directory: Path, examples: Examples) -> dict[str, int]:
    """Write the shards, and return the rows of each split."""
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(ShardWriter(directory, split, examples.shape, examples.dtype))
            for split in examples.splits
        }
        for split, batch, targets, names in prefetched(examples.batches):
            writers[split].append(batch, targets, names)
    return {split: writer.rows for split, writer in writers.items()}
