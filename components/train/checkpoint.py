"""The state of a training after an epoch, in the model store: what is started again goes on from there.

    <store>/checkpoints/<key>/state.npz      of the training with these features, settings, code and packages

It holds all variables (weights, the optimizer's, the seeds of dropout), what callbacks know, and the
history. The order of rows needs no state, as seed and epoch decide it (data.py). So a training that goes on
ends as one that was never cut off. It is gone once the model is exported.
"""

import hashlib
import json
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from modelyard.components import problems
from modelyard.components.artifacts import Record, tree_sha256
from modelyard.components.errors import NotFoundError, StoreError
from modelyard.components.events import CheckpointSaved, emit
from modelyard.components.step import log
from modelyard.components.store.objects import Objects
from modelyard.components.train.backend import BACKEND, keras, tf
from modelyard.components.train.callbacks import Logs
from modelyard.components.train.keras_objects import CALLBACK_STATE

OVERHEAD_BYTES = 64 * 2**20  # beside the variables: names, headers, the history of many epochs


class TrainingState(Record):
    """How far a training is: `epochs` are finished, each with its metrics and seconds.

    `callbacks` has the attributes in CALLBACK_STATE of each callback.
    """

    epochs: int = 0
    metrics: dict[str, list[float]] = Field(default_factory=dict)
    seconds: list[float] = Field(default_factory=list)
    callbacks: list[dict[str, Any]] = Field(default_factory=list)


@dataclass(frozen=True)
class CheckpointStore:
    """Where the checkpoint of one training is."""

    objects: Objects
    key: str

    @property
    def folder(self) -> str:
        """Return the prefix of the objects."""
        return f"checkpoints/{self.key}/"

    def save(self, path: Path) -> None:
        """Keep a file, in place of the one before it."""
        self.objects.upload(f"{self.folder}state.npz", path)

    def load(self, path: Path) -> None:
        """Write the checkpoint into a file.

        Raises:
            NotFoundError: there is none.
        """
        self.objects.download(f"{self.folder}state.npz", path)

    def clear(self) -> None:
        """Remove the checkpoint; what cannot be removed is left to `modelyard gc`."""
        with suppress(StoreError):
            for entry in self.objects.entries(self.folder):
                self.objects.delete(entry)


def fingerprint_training(*parts: Any) -> str:
    """Return what identifies a training: what decides it, and the code and packages that do it."""
    code = [tree_sha256(Path(folder).parent) for folder in (__file__, problems.__file__)]
    packages = version("keras"), version("jax") if BACKEND == "jax" else tf.__version__
    return hashlib.sha256(
        json.dumps([*parts, *code, BACKEND, *packages], sort_keys=True).encode()
    ).hexdigest()


class CheckpointCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps the state after an epoch, when the one before is old enough, and begins with what was kept.

    Args:
        store: where the state is kept.
        every: seconds between two.
        network: built and compiled, its optimizer too.
        callbacks: those of CALLBACK_STATE, which come before this one.
    """

    def __init__(
        self, store: CheckpointStore, every: float, network: Any, callbacks: Sequence[Any] = ()
    ) -> None:
        super().__init__()
        self._store, self._every, self._callbacks = store, every, callbacks
        self._network, self._last, self._began = network, time.monotonic(), 0.0
        self._best: list[NDArray[Any]] = []
        self._metrics: dict[str, list[float]] = {}
        self._seconds: list[float] = []
        self._before = TrainingState()

    def resume(self) -> TrainingState:
        """Put back what was kept, and return how far it is; a state that is damaged is not used.

        Raises:
            StoreError: the store does not answer; starting over would discard the checkpoints in it.
        """
        try:
            with tempfile.TemporaryDirectory() as folder:
                self._store.load(path := Path(folder) / "state.npz")
                state, self._best = read_state(path, self._variables(), self._network.weights)
        except NotFoundError:
            return self._before
        except (ValueError, KeyError, EOFError, BadZipFile) as error:
            log(f"beginning with the first epoch: the checkpoint cannot be used: {error}")
            return self._before
        log(f"going on after epoch {state.epochs}, from a checkpoint")
        self._before, self._seconds = state, list(state.seconds)
        self._metrics = {name: list(values) for name, values in state.metrics.items()}
        return state

    def on_train_begin(self, logs: Logs = None) -> None:  # noqa: ARG002
        """Put back what the callbacks, which have just reset themselves, knew."""
        for one, state in zip(self._callbacks, self._before.callbacks, strict=False):  # none at the beginning
            for name, value in state.items():
                setattr(one, name, value)
            if hasattr(one, "best_weights"):
                one.best_weights = self._best or None

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:  # noqa: ARG002
        """Start the clock."""
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Keep the state, if it is time; not that of the last epoch, after which the model is exported."""
        self._seconds.append(time.perf_counter() - self._began)
        for name, value in (logs or {}).items():
            self._metrics.setdefault(name, []).append(float(value))
        last = self.model.stop_training or epoch + 1 == self.params["epochs"]
        if not last and time.monotonic() - self._last >= self._every:
            self._save(epoch + 1)
            self._last = time.monotonic()

    def _save(self, epochs: int) -> None:
        known = [
            {name: getattr(one, name) for name in CALLBACK_STATE[type(one).__name__]}
            for one in self._callbacks
        ]
        state = TrainingState(epochs=epochs, metrics=self._metrics, seconds=self._seconds, callbacks=known)
        weights = next((kept for one in self._callbacks if (kept := getattr(one, "best_weights", None))), ())
        try:
            with tempfile.TemporaryDirectory() as folder:
                write_state(path := Path(folder) / "state.npz", state, self._variables(), weights)
                self._store.save(path)
                size = path.stat().st_size
        except (StoreError, OSError) as error:  # training is worth more than its checkpoint
            log(f"no checkpoint after epoch {epochs}: {error}")
        else:
            log(f"checkpoint after epoch {epochs} ({size / 1e6:.1f} MB)")
            emit(CheckpointSaved(step="train", epoch=epochs))

    def _variables(self) -> list[Any]:
        return [*self._network.variables, *self._network.optimizer.variables]


def write_state(
    path: Path, state: TrainingState, variables: Sequence[Any], best: Sequence[NDArray[Any]]
) -> None:
    """Write a state: the bytes of each variable, whatever its dtype, and the history as JSON."""
    arrays = {f"variable-{place}": one.numpy() for place, one in enumerate(variables)}
    arrays |= {f"best-{place}": one for place, one in enumerate(best)}
    raw: dict[str, Any] = {
        name: np.ascontiguousarray(one).reshape(-1).view(np.uint8) for name, one in arrays.items()
    }
    np.savez(path, state=np.frombuffer(state.model_dump_json().encode(), np.uint8), **raw)


def read_state(
    path: Path, variables: Sequence[Any], weights: Sequence[Any]
) -> tuple[TrainingState, list[NDArray[Any]]]:
    """Give variables the values of a state; all of them, or none when it does not fit.

    Args:
        path: what `write_state` wrote.
        variables: which get their values back.
        weights: those of them that early stopping keeps of the best epoch.

    Returns:
        How far the training is, and the best epoch's weights, if there are any.

    Raises:
        ValueError: it is no state, or one of other variables; also KeyError, EOFError, BadZipFile.
    """
    expected = sum(int(np.prod(one.shape)) * _dtype(one).itemsize for one in (*variables, *weights))
    with ZipFile(path) as archive:
        there = sum(entry.file_size for entry in archive.infolist())
    if there > 1.1 * expected + OVERHEAD_BYTES:
        raise ValueError(f"it has {there:,} bytes, and the variables have {expected:,}")
    with np.load(path, allow_pickle=False) as kept:
        state = TrainingState.model_validate_json(kept["state"].tobytes())
        values = [_value(kept[f"variable-{place}"], one) for place, one in enumerate(variables)]
        best = (
            [_value(kept[f"best-{place}"], one) for place, one in enumerate(weights)]
            if "best-0" in kept
            else []
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return state, best


def _value(raw: NDArray[np.uint8], variable: Any) -> NDArray[Any]:
    return raw.view(_dtype(variable)).reshape(variable.shape)


def _dtype(variable: Any) -> np.dtype[Any]:
    found: np.dtype[Any] = np.dtype(tf.as_dtype(variable.dtype).as_numpy_dtype)
    return found
