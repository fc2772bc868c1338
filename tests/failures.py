"""Failures of steps: settings that cause them, and the expected error of every runner."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import NamedTuple

from tests.http_server import serve

DATA_FILE = "digits.npz"
CODE = """import ctypes
import keras


def raises(input_shape, classes):
    raise RuntimeError("no such layer")


def crashes(input_shape, classes):
    ctypes.string_at(0)
"""


class Case(NamedTuple):
    """Settings that cause a failure, and its exit code, class, step, and a part of its message.

    A setting may have `{url}`, the URL of a missing file.
    """

    settings: tuple[str, ...]
    exit_code: int
    kind: str
    step: str
    message: str


FAILURES = {
    "data": Case(
        ("data={{kind: npz, scale: 16, source: '{url}'}}",), 3, "DataError", "fingerprint", DATA_FILE
    ),
    "exception": Case(
        ("model={{code: code, build: 'net:raises'}}",), 4, "TrainError", "train", "no such layer"
    ),
    "killed": Case(
        ("model={{code: code, build: 'net:crashes'}}",),
        14,
        "KilledError",
        "train",
        "environment.steps.train.memory",
    ),
}
POD_FAILURES = {
    **FAILURES,
    "memory": Case(
        ("environment.steps.train.memory=150Mi", "training.seed=1"),
        14,
        "OutOfMemoryError",
        "train",
        "environment.steps.train.memory",
    ),
    "no-node": Case(
        ("environment.steps.fingerprint.memory=99Gi",),
        11,
        "UnschedulableError",
        "fingerprint",
        "environment.steps.fingerprint",
    ),
    "no-image": Case(
        ("environment.images.fingerprint=modelyard/missing:1",),
        11,
        "ImageError",
        "fingerprint",
        "environment.images.fingerprint",
    ),
    "timeout": Case(
        ("environment.steps.fingerprint.timeout=1",),
        14,
        "DeadlineError",
        "fingerprint",
        "environment.steps.fingerprint.timeout",
    ),
    "store": Case(
        ("environment.store=gs://modelyard-missing/models",), 7, "StoreError", "fingerprint", "store.url"
    ),
}


def write_code(folder: Path) -> None:
    """Write the user code of the cases into a folder."""
    (folder / "code").mkdir()
    (folder / "code/net.py").write_text(CODE)


@contextmanager
def serve_folder(folder: Path, host: str = "127.0.0.1") -> Iterator[str]:
    """Serve a folder over HTTP; yield the URL of the data file in it."""
    with serve(partial(SimpleHTTPRequestHandler, directory=str(folder)), host) as url:
        yield f"{url}/{DATA_FILE}"
