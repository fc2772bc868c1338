"""Checkpoints: the state of training after an epoch, in the model store, from which it resumes.

    <store>/checkpoints/<key>/state.npz      the key depends on features, settings, code and packages

A checkpoint contains all variables (weights, optimizer, seeds of dropout), the state of callbacks and the
history. The order of examples depends on seed and epoch only (data.py). Therefore a resumed training ends
with the same weights as an uninterrupted one. A checkpoint is deleted after the export of the model.
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

from modelyard.components import problems
from modelyard.components.artifacts import tree_sha256
from modelyard.components.errors import NotFoundError, StoreError
from modelyard.components.events import CheckpointSaved, emit
from modelyard.components.step import log
from modelyard.components.store.objects import Objects
from modelyard.components.train.backend import BACKEND, keras, tf
from modelyard.components.train.callbacks import Logs, TrainingState
from modelyard.components.train.keras_objects import CALLBACK_STATE

OVERHEAD_BYTES = 64 * 2**20  # names, headers and history, in addition to the variables


@dataclass(frozen=True)
class CheckpointStore:
    """The checkpoint of training in the model store; its key identifies the inputs."""

    objects: Objects
    key: str

    def save(self, path: Path) -> None:
        """Upload a checkpoint; it replaces the previous one."""
        self.objects.upload(f"checkpoints/{self.key}/state.npz", path)

    def load(self, path: Path) -> None:
        """Download the checkpoint; raise NotFoundError if there is none."""
        self.objects.download(f"checkpoints/{self.key}/state.npz", path)

    def clear(self) -> None:
        """Delete the checkpoint; on an error it is left to `modelyard gc`."""
        with suppress(StoreError):
            for entry in self.objects.entries(f"checkpoints/{self.key}/"):
                self.objects.delete(entry)


def fingerprint_training(*parts: Any) -> str:
    """Return the key of a checkpoint: a hash of its inputs, the code of modelyard and the packages."""
    code = [tree_sha256(Path(folder).parent) for folder in (__file__, problems.__file__)]
    packages = version("keras"), version("jax") if BACKEND == "jax" else tf.__version__
    return hashlib.sha256(
        json.dumps([*parts, *code, BACKEND, *packages], sort_keys=True).encode()
    ).hexdigest()


class CheckpointCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Saves a checkpoint after an epoch when the interval has passed, and restores the last one.

    Args:
        store: the checkpoint's location.
        interval: minimum seconds between two checkpoints.
        network: built and compiled, including its optimizer.
        callbacks: those with a state. They, and the ProgressLogger with `state`, precede this one.
    """

    def __init__(
        self, store: CheckpointStore, interval: float, network: Any, callbacks: Sequence[Any] = ()
    ) -> None:
        super().__init__()
        self._store, self._interval, self._callbacks = store, interval, callbacks
        self._network, self._last_save = network, time.monotonic()
        self._best_weights: list[NDArray[Any]] = []
        self.state = TrainingState()

    def restore(self) -> None:
        """Restore the last checkpoint and its state; a damaged checkpoint is ignored.

        Raises:
            StoreError: the store is unreachable; starting over would overwrite its checkpoint.
        """
        try:
            with tempfile.TemporaryDirectory() as folder:
                self._store.load(path := Path(folder) / "state.npz")
                self.state, self._best_weights = read_state(path, self._variables(), self._network.weights)
        except NotFoundError:
            return
        except (ValueError, KeyError, EOFError, BadZipFile) as error:
            log(f"starting with the first epoch, because the checkpoint is damaged: {error}")
        else:
            log(f"resuming after epoch {self.state.epochs} from a checkpoint")

    def on_train_begin(self, logs: Logs = None) -> None:
        """Restore the state of the callbacks, which reset themselves before this method is called."""
        # `state.callbacks` is empty without a checkpoint.
        for callback, state in zip(self._callbacks, self.state.callbacks, strict=False):
            for name, value in state.items():
                setattr(callback, name, value)
            if hasattr(callback, "best_weights"):
                callback.best_weights = self._best_weights or None

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Save a checkpoint when the interval has passed; none after the last epoch."""
        last = self.model.stop_training or epoch + 1 == self.params["epochs"]
        if not last and time.monotonic() - self._last_save >= self._interval:
            self._save(epoch + 1)
            self._last_save = time.monotonic()

    def _save(self, epochs: int) -> None:
        callback_states = [
            {name: getattr(callback, name) for name in CALLBACK_STATE[type(callback).__name__]}
            for callback in self._callbacks
        ]
        state = self.state.model_copy(update={"epochs": epochs, "callbacks": callback_states})
        all_best_weights = (getattr(callback, "best_weights", None) for callback in self._callbacks)
        best_weights = next(filter(None, all_best_weights), ())
        try:
            with tempfile.TemporaryDirectory() as folder:
                write_state(path := Path(folder) / "state.npz", state, self._variables(), best_weights)
                self._store.save(path)
                size = path.stat().st_size
        except (StoreError, OSError) as error:  # training continues without the checkpoint
            log(f"cannot save a checkpoint after epoch {epochs}: {error}")
        else:
            log(f"checkpoint after epoch {epochs} ({size / 1e6:.1f} MB)")
            emit(CheckpointSaved(step="train", epoch=epochs))

    def _variables(self) -> list[Any]:
        return [*self._network.variables, *self._network.optimizer.variables]


def write_state(
    path: Path, state: TrainingState, variables: Sequence[Any], best: Sequence[NDArray[Any]]
) -> None:
    """Write a checkpoint: each variable as bytes, because .npz lacks some dtypes, and the state as JSON."""
    arrays = {f"variable-{index}": variable.numpy() for index, variable in enumerate(variables)}
    arrays |= {f"best-{index}": array for index, array in enumerate(best)}
    raw: dict[str, Any] = {
        name: np.ascontiguousarray(array).reshape(-1).view(np.uint8) for name, array in arrays.items()
    }
    np.savez(path, state=np.frombuffer(state.model_dump_json().encode(), np.uint8), **raw)


def read_state(
    path: Path, variables: Sequence[Any], weights: Sequence[Any]
) -> tuple[TrainingState, list[NDArray[Any]]]:
    """Assign the values of a checkpoint to all variables of training; on an error, to none.

    Return the state, and the values of `weights` after the best epoch; empty if early stopping stored none.

    Raises:
        ValueError: the file is damaged or has other variables; also KeyError, EOFError, BadZipFile.
    """
    expected = sum(
        int(np.prod(variable.shape)) * _get_dtype(variable).itemsize for variable in (*variables, *weights)
    )
    with ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > 1.1 * expected + OVERHEAD_BYTES:
        raise ValueError(f"it has {size:,} bytes, and the variables have {expected:,}")
    with np.load(path, allow_pickle=False) as arrays:
        state = TrainingState.model_validate_json(arrays["state"].tobytes())
        values = [
            _to_array(arrays[f"variable-{index}"], variable) for index, variable in enumerate(variables)
        ]
        with_best = weights if "best-0" in arrays else ()
        best = [_to_array(arrays[f"best-{index}"], weight) for index, weight in enumerate(with_best)]
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return state, best


def _to_array(raw: NDArray[np.uint8], variable: Any) -> NDArray[Any]:
    return raw.view(_get_dtype(variable)).reshape(variable.shape)


def _get_dtype(variable: Any) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.dtype(tf.as_dtype(variable.dtype).as_numpy_dtype)
    return dtype
