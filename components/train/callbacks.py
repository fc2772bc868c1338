"""Callbacks of every training: check for NaN, log each epoch, measure its time."""

import math
import time
from collections.abc import Sequence
from typing import Any

from modelyard.components.artifacts import format_number
from modelyard.components.errors import TrainError
from modelyard.components.events import Epoch, emit
from modelyard.components.step import log
from modelyard.components.train.backend import keras

Logs = dict[str, Any] | None


class FailOnNonFinite(keras.callbacks.Callback):  # type: ignore[misc]
    """Raises TrainError when a metric becomes NaN or infinite."""

    def __init__(self) -> None:
        super().__init__()
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:  # noqa: ARG002
        """See keras.callbacks.Callback."""
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:  # noqa: ARG002
        """Check the metrics of the epoch so far."""
        self._check(logs)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:  # noqa: ARG002
        """Check all metrics, including those of validation."""
        self._check(logs)

    def _check(self, logs: Logs) -> None:
        for name, value in (logs or {}).items():
            if not math.isfinite(value):
                raise TrainError(
                    f"{name} became {float(value)} in epoch {self._epoch}. Lower "
                    "training.optimizer_settings.learning_rate, set clipnorm: 1.0 beside it, or check "
                    "data.normalize and data.scale."
                )


class ProgressLogger(keras.callbacks.Callback):  # type: ignore[misc]
    """Logs a line per epoch, emits an event, and measures the seconds of each epoch, validation included.

    Args:
        epochs: maximum number of epochs.
        examples: number of training examples.
        previous_seconds: of the epochs before a resumed training.
    """

    def __init__(self, epochs: int, examples: int, previous_seconds: Sequence[float] = ()) -> None:
        super().__init__()
        self.seconds = list(previous_seconds)
        self._epochs, self._examples, self._started = epochs, examples, 0.0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:  # noqa: ARG002
        """Start the clock."""
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Stop the clock and log the line."""
        self.seconds.append(seconds := time.perf_counter() - self._started)
        order = sorted(logs or {}, key=lambda name: (name.startswith("val_"), "loss" not in name, name))
        metrics = "  ".join(f"{name} {format_number(logs[name])}" for name in order if logs)
        pace = f"({seconds:.1f} s, {self._examples / seconds:,.0f} samples/s)"
        log(f"epoch {epoch + 1}/{self._epochs}  {metrics}  {pace}")
        numbers = {name: float(logs[name]) for name in order} if logs else {}
        emit(Epoch(step="train", epoch=epoch + 1, epochs=self._epochs, metrics=numbers, seconds=seconds))

    @property
    def samples_per_second(self) -> float:
        """Training examples per second, without the first of several epochs, which includes tracing."""
        seconds = self.seconds[1:] or self.seconds
        return self._examples * len(seconds) / sum(seconds)
