"""The step `ingest`: reads a source of any kind and writes shards of one shape and dtype.

    ingest(IngestSpec(source=Source(kind="digits")), fingerprint, "…/raw")

Each kind of source has a module that reads it batch by batch. Content of the source is never executed, and
only shards and schema.json are written.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from modelyard.components import artifacts
from modelyard.components.artifacts import Schema
from modelyard.components.errors import DataError
from modelyard.components.ingest.examples import Examples
from modelyard.components.ingest.spec import IngestSpec
from modelyard.components.shards import write_splits
from modelyard.components.source.checks import redact_url
from modelyard.components.source.location import locate
from modelyard.components.source.settings import KINDS, Source
from modelyard.components.step import log
from modelyard.components.store.storage import is_path


def ingest(spec: IngestSpec, fingerprint: str, raw: str) -> None:
    """Fetch the source, decode it, and write shards and schema.json to the folder `raw`.

    Raises:
        DataError: the source is missing, damaged, or does not match the settings.
    """
    settings = spec.source
    with tempfile.TemporaryDirectory() as scratch, artifacts.replace_folder(Path(raw)) as folder:
        path = locate(settings).fetch(Path(scratch))
        with _show_url(path, settings):
            reader = import_module(f"{__package__}.{KINDS[settings.kind].reader}")
            examples: Examples = reader.read(path, settings)
            shape, dtype = examples.shape, examples.dtype
            counts = write_splits(folder, examples.splits, shape, dtype, examples.batches)
        schema = Schema(
            shape=shape,
            dtype=dtype,
            problem=settings.problem,
            names=examples.names,
            splits=counts,
            image=examples.image,
            notes=tuple(examples.notes),  # complete once the batches are read
            skipped=tuple(examples.skipped),
        )
        artifacts.write(folder / "schema.json", schema)
    for note in examples.notes:
        log(note)
    log(f"examples: {counts} of {dtype} {shape}, data {fingerprint}")


@contextmanager
def _show_url(path: Path, source: Source) -> Iterator[None]:
    """Replace the temporary path of a download by its URL in error messages."""
    try:
        yield
    except DataError as error:
        if is_path(source.source or ""):
            raise
        raise DataError(str(error).replace(str(path), redact_url(str(source.source)))) from error
