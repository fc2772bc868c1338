"""What happens around each epoch: the loss is checked, one line is printed, the time is taken."""

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
    """Stops training with a TrainError as soon as the loss became NaN or infinite."""

    def __init__(self) -> None:
        super().__init__()
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:  # noqa: ARG002
        """Remember the epoch."""
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:  # noqa: ARG002
        """Look at the loss of the epoch so far."""
        self._check(logs)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:  # noqa: ARG002
        """Look at all metrics, those of the validation rows too."""
        self._check(logs)

    def _check(self, logs: Logs) -> None:
        for name, value in (logs or {}).items():
            if not math.isfinite(value):
                raise TrainError(
                    f"{name} is {float(value)} in epoch {self._epoch}, so the weights are lost. Lower "
                    "training.optimizer_settings.learning_rate, set clipnorm: 1.0 beside it, or check "
                    "data.normalize and data.scale."
                )


class ProgressLogger(keras.callbacks.Callback):  # type: ignore[misc]
    """Prints a line per epoch, emits it as an event, and keeps the epochs' times.

    Args:
        epochs: how many there will be at most.
        rows: training rows of an epoch.
        before: the seconds of epochs that an earlier attempt has finished.

    `seconds` has one value per epoch, validation included.
    """

    def __init__(self, epochs: int, rows: int, before: Sequence[float] = ()) -> None:
        super().__init__()
        self.seconds = list(before)
        self._epochs, self._rows, self._started = epochs, rows, 0.0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:  # noqa: ARG002
        """Start the clock."""
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Stop the clock and print the line."""
        self.seconds.append(seconds := time.perf_counter() - self._started)
        order = sorted(logs or {}, key=lambda name: (name.startswith("val_"), "loss" not in name, name))
        metrics = "  ".join(f"{name} {format_number(logs[name])}" for name in order if logs)
        pace = f"({seconds:.1f} s, {self._rows / seconds:,.0f} samples/s)"
        log(f"epoch {epoch + 1}/{self._epochs}  {metrics}  {pace}")
        numbers = {name: float(logs[name]) for name in order} if logs else {}
        emit(Epoch(step="train", epoch=epoch + 1, epochs=self._epochs, metrics=numbers, seconds=seconds))

    @property
    def samples_per_second(self) -> float:
        """Training rows a second, without the first epoch, which also traces, when there are more."""
        steady = self.seconds[1:] or self.seconds
        return self._rows * len(steady) / sum(steady)
