"""Times real training steps for some seconds.

    python -m modelyard.components.train.probe TRIAL.json PROBED.json
    python -m modelyard.components.train.probe '{"workload": …}'  # in a pod

The network is built and compiled as the step `train` does it. Training and validation are timed in windows of
one batch and of many, which separates the cost of a call from that of a batch. Compilation happens in the
first calls and is measured apart.
"""

import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from modelyard.components import artifacts, interface, problems
from modelyard.components.artifacts import Schema
from modelyard.components.shards import ShardWriter
from modelyard.components.step import log, step, termination_log
from modelyard.components.train import cost as costs
from modelyard.components.train import data
from modelyard.components.train import model as networks
from modelyard.components.train.backend import BACKEND, keras, list_devices, tf, translate_out_of_memory
from modelyard.components.train.callbacks import FailOnNonFinite
from modelyard.components.train.data import Features, Subset
from modelyard.components.train.export import export
from modelyard.components.train.measurement import Pace, ProbeRequest, ProbeResult, TrainingWorkload
from modelyard.components.train.settings import Training
from modelyard.components.train.trainer import CHECKED_EXAMPLES

T = TypeVar("T")
MAXIMUM_RANDOM_BYTES = 64 * 2**20  # of random features, at most
MINIMUM_WINDOWS = 4
EXTRA_SECONDS = 60.0  # seconds after its time in which a probe may still take its minimum of turns
MINIMUM_BATCHES = 8  # of a window: the difference to a shorter one tells little of a batch
MAXIMUM_STRETCH = 10  # a window of MINIMUM_BATCHES may take so many times as long as it should


def probe(request: ProbeRequest, scratch: Path) -> ProbeResult:
    """Return what training takes.

    Args:
        request: the model, its features and how long to run.
        scratch: an empty folder.

    Raises:
        DataError: the features are malformed.
        TooLargeError: it needs more memory than there is.
        TrainError: the model cannot be built, trained or exported.
    """
    began, load = time.perf_counter(), os.getloadavg()[0] / (os.cpu_count() or 1)
    workload, device = request.workload, list_devices()[0]
    settings = workload.model
    features = (
        Path(workload.features)
        if workload.features
        else _write_random_features(workload, scratch / "features")
    )
    opening, rows = measure_time(lambda: Features.read(features))
    with costs.translate_code_errors(workload, "Probing"), translate_out_of_memory(_batch_size(workload)):
        building, network = measure_time(lambda: costs.build_compiled_network(workload))
        passes = TimedPasses(network, rows, workload.training)
        compiling = passes.warm_up()
        passes.run(request.seconds)
        exported = networks.add_export_layer(network, settings, rows.schema)
        checked = rows.train.gather(np.arange(min(CHECKED_EXAMPLES, len(rows.train))))
        exporting = 0.0
        for name in ("rehearsal", "model") if settings.build else ("model",):
            (scratch / name).mkdir()
            exporting += measure_time(
                partial(export, exported, rows.schema, rows.normalization, checked, scratch / name)
            )[0]
    return ProbeResult(
        device=device,
        load=load,
        synthetic=not workload.features,
        setup=opening + building,
        compile=compiling,
        export=exporting,
        epoch=passes.epoch.pace(),
        validation=passes.validation.pace() if passes.validation else None,
        memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        device_memory=_device_memory(),
        model_bytes=artifacts.tree_bytes(scratch / "model"),
        inside=time.perf_counter() - began,
    )


def measure_time(function: Callable[[], T]) -> tuple[float, T]:
    """Return how many seconds a call took, and what it returned."""
    began = time.perf_counter()
    result = function()
    return time.perf_counter() - began, result


class TimingWindows:
    """Windows of one pass: of a single batch, which is mostly the cost of a call, and of many.

    Args:
        run: runs n batches and returns the seconds.
        maximum: the number of batches at most.
    """

    def __init__(self, run: Callable[[int], float], maximum: int) -> None:
        self._run, self._maximum, self._size = run, maximum, 1
        self._first_time = 0.0
        self._times: dict[int, list[float]] = {}

    def warm_up(self) -> float:
        """Run one batch and return its seconds; they count only where there is no time for a window."""
        self._first_time = self._run(1)
        return self._first_time

    def choose_size(self, seconds: float) -> None:
        """Choose a window of about `seconds`: MINIMUM_BATCHES or more, or one where that takes too long."""
        count, took = 1, self.warm_up()
        while took < seconds / 4 and count < self._maximum:
            count = min(self._maximum, 2 * count)
            took = self._run(count)
        self._size = min(self._maximum, max(1, int(count * seconds / max(took, 1e-9))))
        if self._size < (few := min(self._maximum, MINIMUM_BATCHES)):
            self._size = few if few * took / count < MAXIMUM_STRETCH * seconds else 1

    def measure(self) -> None:
        """Run a window of one batch, and one of many."""
        for count in sorted({1, self._size}):
            self._times.setdefault(count, []).append(self._run(count))

    def pace(self) -> Pace:
        """Return the pace by the means, as slow moments are part of a long run, too."""
        windows = self._times or {1: [self._first_time]}
        count, one = max(windows), float(np.mean(windows[1]))
        many = float(np.mean(windows[count]))
        # on a busy machine, a window of one may take longer than one of many
        each = (many - one) / (count - 1) if many > one else many / count
        low, high = np.quantile(np.asarray(windows[count]) / many, (0.1, 0.9))
        return Pace(fixed=max(0.0, many - count * each), each=each, low=float(low), high=float(high))


class TimedPasses:
    """Training and validation of one network, in windows that take turns."""

    def __init__(self, network: Any, rows: Features, training: Training) -> None:
        self._network, self._rows, self._training = network, rows, training
        size = training.batch_size
        self._steps, held = -(-len(rows.train) // size), -(-len(rows.validation) // size)
        self.epoch = TimingWindows(self._fit, self._steps)
        self.validation = TimingWindows(self._evaluate, held) if held else None

    def warm_up(self) -> float:
        """Compile everything; return what the first step and the first validation take beyond their time."""
        compiling = self._compile_time(self.epoch.warm_up)
        rest = len(self._rows.train) % self._training.batch_size
        if rest and self._steps > 1 and self._network.jit_compile:  # XLA compiles each size of a batch
            last = Subset(self._rows.train, np.arange(rest))
            compiling += self._compile_time(lambda: self._timed_fit(self._shuffled(last)))
        if self.validation:
            compiling += self._compile_time(self.validation.warm_up)
        return compiling

    def run(self, seconds: float) -> None:
        """Time both passes, training three times as often as validation."""
        until = time.perf_counter() + seconds
        late = until + EXTRA_SECONDS
        self.epoch.choose_size(seconds / 10)
        if self.validation and time.perf_counter() < late:
            self.validation.choose_size(seconds / 20)
        turn = 0
        while (now := time.perf_counter()) < until or (turn < MINIMUM_WINDOWS and now < late):
            (self.validation if self.validation and turn % 4 == 3 else self.epoch).measure()
            turn += 1

    @staticmethod
    def _compile_time(first: Callable[[], float]) -> float:
        """Return how much longer the first of two equal calls takes, everything around it included."""
        wall, _ = measure_time(first)
        return max(0.0, wall - first())

    def _fit(self, steps: int) -> float:
        batches = self._shuffled(self._rows.train)
        return self._timed_fit(batches if steps == self._steps else batches.take(steps))

    def _shuffled(self, rows: Any) -> Any:
        return data.shuffled_batches(rows, self._training.batch_size, self._training.seed)

    def _timed_fit(self, batches: Any) -> float:
        seconds, _ = measure_time(
            lambda: self._network.fit(batches, callbacks=[FailOnNonFinite()], shuffle=False, verbose=0)
        )
        return seconds

    def _evaluate(self, steps: int) -> float:
        clock = EvaluationClock()
        batches = data.ordered_batches(self._rows.validation, self._training.batch_size).take(steps)
        self._network.evaluate(batches, callbacks=[clock], verbose=0)
        return clock.seconds


class EvaluationClock(keras.callbacks.Callback):  # type: ignore[misc]
    """Takes the time of an evaluation, without what Keras does around it."""

    def on_test_begin(self, logs: Any = None) -> None:  # noqa: ARG002
        """Start the clock."""
        self._began = time.perf_counter()

    def on_test_end(self, logs: Any = None) -> None:  # noqa: ARG002
        """Stop the clock."""
        self.seconds = time.perf_counter() - self._began


def _batch_size(workload: TrainingWorkload) -> int:
    return min(workload.training.batch_size, workload.training_examples)


def _write_random_features(workload: TrainingWorkload, directory: Path) -> Path:
    """Write random features of the model's shape: as many rows as there are, or as fit into a bound."""
    directory.mkdir()
    schema: Schema = workload.example_schema
    row = int(np.prod(schema.shape)) * np.dtype(schema.dtype).itemsize
    maximum = max(2 * _batch_size(workload), MAXIMUM_RANDOM_BYTES // row)
    random, problem = np.random.default_rng(0), problems.of(schema.problem)
    splits = {
        "train": min(maximum, workload.training_examples),
        "validation": min(maximum, workload.validation_examples),
    }
    for split, rows in splits.items():
        with ShardWriter(directory, split, schema.shape, schema.dtype) as writer:
            for start in range(0, rows, 1024):
                few = min(1024, rows - start)
                noise = random.integers(0, 256, (few, *schema.shape)).astype(schema.dtype)
                writer.append(noise, problem.random_targets(schema, few, random))
    artifacts.write(directory / "schema.json", schema.model_copy(update={"splits": splits}))
    artifacts.write(directory / "normalization.json", workload.normalization)
    return directory


def _device_memory() -> int | None:
    if BACKEND != "tensorflow" or not tf.config.list_physical_devices("GPU"):
        return None
    return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])


def main() -> None:
    """Read the request, probe, and write the answer: in a pod, as its termination message."""
    with step("probe"):
        interface.check("train")  # as a pod, it runs in the image of train
        asked, *named = sys.argv[1:]
        request = (
            artifacts.read(Path(asked), ProbeRequest) if named else ProbeRequest.model_validate_json(asked)
        )
        if not named:
            log(f"probing on {list_devices()[0]} with {BACKEND}")
        with tempfile.TemporaryDirectory() as scratch:
            found = probe(request, Path(scratch))
    if answer := Path(named[0]) if named else termination_log():
        answer.write_text(found.model_dump_json(), encoding="utf-8")  # in a pod it is mounted: no rename


if __name__ == "__main__":
    main()
