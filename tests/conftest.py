"""Distribution of the tests to CPUs, and fixtures of several folders, such as CIFAR-10 archives."""

import colorsys
import io
import os
import pickle
import signal
import socket
import struct
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from xdist.scheduler import LoadScopeScheduling

SHARE_FIXTURES = ("flow", "serve", "rollout", "cluster")
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
BATCHES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)

if "PYTEST_XDIST_WORKER" in os.environ:  # one worker per core
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))


def pytest_configure() -> None:
    """Restore Python's handler of SIGINT: a shell starts background jobs with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _fast_compilation() -> Iterator[None]:
    """Skip a check of KFP that makes each setter of a task slow."""
    from kfp.dsl.pipeline_task import PipelineTask

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PipelineTask, "_ensure_container_spec_exists", lambda _: None)
        yield


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Schedule the tests of a file, or of a folder with shared fixtures, on one worker."""
    return FileScheduling(config, log)


class FileScheduling(LoadScopeScheduling):
    """Like `--dist loadgroup`, whose marks do not work with pytest 9.2."""

    def _split_scope(self, nodeid: str) -> str:
        path = Path(nodeid.split("::")[0])
        return str(path.parent if path.parent.name in SHARE_FIXTURES else path)


@pytest.fixture
def modelyard(capsys: pytest.CaptureFixture[str]) -> Any:
    """The command line in this process."""
    from tests.command_line import CommandLine

    return CommandLine(capsys)


@pytest.fixture
def unreachable_url() -> Iterator[str]:
    """A URL of this machine whose port is reserved, so that no server responds."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{reserved.getsockname()[1]}"


@pytest.fixture(scope="session")
def cifar10_archive() -> Callable[..., Path]:
    """Return a function that writes an archive in an official layout of CIFAR-10; see `write_cifar10`."""
    return write_cifar10


@pytest.fixture(scope="session")
def python2_pickle() -> Callable[[Any], bytes]:
    """Return a function that pickles a value as Python 2 does: protocol 2, `str` for text and bytes."""
    return to_python2_pickle


def write_cifar10(
    path: Path, layout: Literal["binary", "python"], images_per_batch: int = 20, seed: int = 0
) -> Path:
    write = write_binary if layout == "binary" else write_python
    write(path, images_per_batch, seed)
    return path


def write_binary(path: Path, images_per_batch: int, seed: int) -> None:
    files = {"batches.meta.txt": "\n".join([*CLASSES, ""]).encode()}
    for number, name in enumerate(BATCHES):
        images, labels = generate_images(images_per_batch, (seed, number))
        files[f"{name}.bin"] = np.hstack([labels[:, None], channels_first(images)]).tobytes()
    write_tar(path, {f"cifar-10-batches-bin/{name}": data for name, data in files.items()})


def write_python(path: Path, images_per_batch: int, seed: int) -> None:
    meta = {"num_cases_per_batch": images_per_batch, "label_names": CLASSES, "num_vis": 3072}
    files = {"batches.meta": to_python2_pickle(meta), "readme.html": b"<p>CIFAR-10</p>"}
    for number, name in enumerate(BATCHES):
        images, labels = generate_images(images_per_batch, (seed, number))
        batch = {
            "batch_label": f"training batch {number + 1} of 5",
            "labels": labels.tolist(),
            "data": channels_first(images),
            "filenames": [f"image_{number}.png" for number in range(images_per_batch)],
        }
        files[name] = to_python2_pickle(batch)
    write_tar(path, {f"cifar-10-batches-py/{name}": data for name, data in files.items()})


def generate_images(count: int, seed: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return images (count, 32, 32, 3) with a color and a bar for each class and noise, and their labels."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(count) % 10).astype(np.uint8)
    colors = np.array([colorsys.hsv_to_rgb(label / 10, 0.6, 0.7) for label in range(10)]) * 255
    images = np.repeat(colors[labels], 32 * 32, axis=0).reshape(count, 32, 32, 3)
    for image, label in zip(images, labels, strict=True):
        image[:, 3 * label : 3 * label + 4] = 255
    images += random.normal(0, 25, images.shape)
    return images.clip(0, 255).astype(np.uint8), labels


def channels_first(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2).reshape(len(images), -1))


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


class Python2Pickler(pickle._Pickler):
    """Writes text and bytes as Python 2's `str`, as in the official files."""

    def save_string(self, value: str | bytes) -> None:
        data = value.encode("latin-1") if isinstance(value, str) else value
        short = len(data) < 256
        head = pickle.SHORT_BINSTRING + bytes([len(data)]) if short else pickle.BINSTRING
        self.write(head + (b"" if short else struct.pack("<i", len(data))) + data)
        self.memoize(value)

    dispatch: ClassVar[dict[type, Any]] = {**pickle._Pickler.dispatch, str: save_string, bytes: save_string}


def to_python2_pickle(value: Any) -> bytes:
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
