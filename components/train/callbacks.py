"""The callbacks of every training: check for NaN, record and log each epoch."""

import math
import time
from typing import Any

from pydantic import Field

from modelyard.components.artifacts import Record, format_number
from modelyard.components.errors import TrainError
from modelyard.components.events import Epoch, emit
from modelyard.components.step import log
from modelyard.components.train.backend import keras

Logs = dict[str, Any] | None


class TrainingState(Record):
    """The progress of training: finished epochs with their metrics and seconds.

    `callbacks` has the attributes in CALLBACK_STATE of each callback.
    """

    epochs: int = 0
    metrics: dict[str, list[float]] = Field(default_factory=dict)
    seconds: list[float] = Field(default_factory=list)
    callbacks: list[dict[str, Any]] = Field(default_factory=list)


class FailOnNonFinite(keras.callbacks.Callback):  # type: ignore[misc]
    """Raises TrainError when a metric becomes NaN or infinite."""

    def __init__(self) -> None:
        super().__init__()
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Check the metrics of the epoch so far."""
        self._check(logs)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Check all metrics, including those of validation."""
        self._check(logs)

    def _check(self, logs: Logs) -> None:
        for name, value in (logs or {}).items():
            if not math.isfinite(value):
                raise TrainError(
                    f"{name} became {float(value)} in epoch {self._epoch}. Lower "
                    "training.optimizer_settings.learning_rate, set training.optimizer_settings.clipnorm: "
                    "1.0, or check data.normalize and data.scale."
                )


class ProgressLogger(keras.callbacks.Callback):  # type: ignore[misc]
    """Logs a line and emits an event for each epoch, and adds its metrics and seconds to the state.

    Args:
        epochs: maximum number of epochs.
        examples: number of training examples.
        state: contains the epochs before training resumed. Seconds include validation.
    """

    def __init__(self, epochs: int, examples: int, state: TrainingState) -> None:
        super().__init__()
        self._epochs, self._examples, self._state, self._start = epochs, examples, state, 0.0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Record the epoch and log a line."""
        self._state.seconds.append(seconds := time.perf_counter() - self._start)
        order = sorted(logs or {}, key=lambda name: (name.startswith("val_"), "loss" not in name, name))
        metrics = {name: float(logs[name]) for name in order} if logs else {}
        for name, value in (logs or {}).items():
            self._state.metrics.setdefault(name, []).append(float(value))
        values = "  ".join(f"{name} {format_number(value)}" for name, value in metrics.items())
        speed = f"({seconds:.1f} s, {self._examples / seconds:,.0f} examples/s)"
        log(f"epoch {epoch + 1}/{self._epochs}  {values}  {speed}")
        emit(Epoch(step="train", epoch=epoch + 1, epochs=self._epochs, metrics=metrics, seconds=seconds))

    @property
    def examples_per_second(self) -> float:
        """Training examples per second, without the first of several epochs, which includes tracing."""
        seconds = self._state.seconds[1:] or self._state.seconds
        return self._examples * len(seconds) / sum(seconds)
