"""Sources of data, and the step ingest."""

import io
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from modelyard.components import artifacts
from modelyard.components.artifacts import Schema
from modelyard.components.ingest.dataset import ingest
from modelyard.components.ingest.spec import IngestSpec
from modelyard.components.shards import Split
from modelyard.components.source.settings import Source

Files = dict[str, bytes]
PackFiles = Callable[[Files], Path]


class Raw(NamedTuple):
    """The output of ingest; examples and labels by split."""

    schema: Schema
    examples: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]


@pytest.fixture
def run_ingest(tmp_path: Path) -> Callable[..., Raw]:
    """Return a function that runs the step on a source and reads its output."""

    def run(kind: str, source: Path | None = None, **settings: Any) -> Raw:
        source_settings = {"kind": kind, "source": str(source) if source else None, **settings}
        raw = tmp_path / "artifacts" / "raw"
        ingest(IngestSpec(source=Source.model_validate(source_settings)), "fingerprint", str(raw))
        schema = artifacts.read(raw / "schema.json", Schema)
        splits = {name: Split(raw, name) for name in schema.splits}
        examples = {name: split.gather(np.arange(len(split))) for name, split in splits.items()}
        return Raw(schema, examples, {name: split.targets for name, split in splits.items()})

    return run


def png(pixels: Any = 7, shape: tuple[int, ...] = (4, 4, 3)) -> bytes:
    buffer = io.BytesIO()
    array = np.broadcast_to(np.asarray(pixels, np.uint8), shape) if np.ndim(pixels) < 2 else pixels
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, "PNG")
    return buffer.getvalue()


def as_folder(path: Path, files: Files) -> Path:
    for name, data in files.items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            target.write_bytes(data)
        else:
            target.mkdir(exist_ok=True)
    return path


def as_zip(path: Path, files: Files) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def as_tar(path: Path, files: Files) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name.rstrip("/"))
            entry.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


@pytest.fixture(params=["folder", "zip", "tar"])
def pack(request: pytest.FixtureRequest, tmp_path: Path) -> PackFiles:
    """Return a function that writes files as a folder, a zip and a tar.

    A name that ends with `/` is a folder.
    """
    write = {"folder": as_folder, "zip": as_zip, "tar": as_tar}[request.param]
    return lambda files: write(tmp_path / f"source.{request.param}", files)


@contextmanager
def peak_memory() -> Iterator[Callable[[], int]]:
    """Trace allocations; yield a function that returns the peak in bytes."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture
def png_image() -> Callable[..., bytes]:
    """Return a function that returns a PNG file, of a color and a shape, or of an array."""
    return png
