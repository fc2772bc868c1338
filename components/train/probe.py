"""Measures the time of real training steps, for some seconds.

    python -m modelyard.components.train.probe REQUEST.json RESULT.json
    python -m modelyard.components.train.probe '{"workload": …}'  # in a pod

The network is built and compiled as in the step `train`. Training and validation are measured in windows of
one batch and of many, which separates the time of a call from that of a batch. Compilation, which happens in
the first calls, is measured separately.
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
from modelyard.components.train.trainer import CHECKED_EXAMPLES, check_untrained_network

T = TypeVar("T")
MAX_RANDOM_BYTES = 64 * 2**20  # of random features
MIN_WINDOWS = 4
EXTRA_SECONDS = 60.0  # beyond the requested time, until MIN_WINDOWS are measured
MIN_BATCHES = 8  # of a window: with fewer, the time per batch is imprecise
MAX_STRETCH = 10  # how many times longer than requested a window of MIN_BATCHES may take


def probe(request: ProbeRequest, scratch: Path) -> ProbeResult:
    """Measure training; `scratch` is an empty folder.

    Raises:
        TooLargeError: training runs out of memory.
        TrainError: the model cannot be built, trained or exported.
    """
    began, load = time.perf_counter(), os.getloadavg()[0] / (os.cpu_count() or 1)
    workload, device = request.workload, list_devices()[0]
    settings = workload.model
    features_path = Path(workload.features or scratch / "features")
    if not workload.features:
        _write_random_features(workload, features_path)
    open_seconds, features = measure_time(lambda: Features.read(features_path))
    with costs.translate_code_errors(workload, "Probing"), translate_out_of_memory(_get_batch_size(workload)):
        build_seconds, network = measure_time(lambda: costs.build_compiled_network(workload))
        examples = features.train.gather(np.arange(min(CHECKED_EXAMPLES, len(features.train))))
        targets = features.train.targets[: len(examples)]
        check_untrained_network(network, settings, workload.training, features.schema, examples, targets)
        passes = TimedPasses(network, features, workload.training)
        compile_seconds = passes.warm_up()
        passes.run(request.seconds)
        inference_model = networks.add_export_layer(network, settings, features.schema)
        export_seconds = 0.0
        for name in ("untrained", "model") if settings.build else ("model",):
            (scratch / name).mkdir()
            arguments = inference_model, features.schema, features.normalization, examples, scratch / name
            export_seconds += measure_time(partial(export, *arguments))[0]
    return ProbeResult(
        device=device,
        load=load,
        synthetic=not workload.features,
        setup=open_seconds + build_seconds,
        compile=compile_seconds,
        export=export_seconds,
        epoch=passes.training_windows.pace(),
        validation=passes.validation_windows.pace() if passes.validation_windows else None,
        memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        device_memory=_measure_device_memory(),
        model_bytes=artifacts.tree_bytes(scratch / "model"),
        seconds=time.perf_counter() - began,
    )


def measure_time(function: Callable[[], T]) -> tuple[float, T]:
    """Return the seconds of a call, and its result."""
    began = time.perf_counter()
    result = function()
    return time.perf_counter() - began, result


class TimingWindows:
    """Measured windows of training or of validation: of one batch, and of many.

    A window is one call of Keras; with one batch, its time is mostly the overhead of the call.

    Args:
        run: runs a number of batches and returns the seconds.
        maximum: maximum number of batches.
    """

    def __init__(self, run: Callable[[int], float], maximum: int) -> None:
        self._run, self._maximum, self._size = run, maximum, 1
        self._first_time = 0.0
        self._times: dict[int, list[float]] = {}

    def warm_up(self) -> float:
        """Run one batch and return its seconds, which `pace` uses if no window is measured."""
        self._first_time = self._run(1)
        return self._first_time

    def choose_size(self, seconds: float) -> None:
        """Choose a window size for about `seconds`: MIN_BATCHES or more, or 1 if that takes too long."""
        count, took = 1, self.warm_up()
        while took < seconds / 4 and count < self._maximum:
            count = min(self._maximum, 2 * count)
            took = self._run(count)
        self._size = min(self._maximum, max(1, int(count * seconds / max(took, 1e-9))))
        if self._size < (minimum := min(self._maximum, MIN_BATCHES)):
            self._size = minimum if minimum * took / count < MAX_STRETCH * seconds else 1

    def measure(self) -> None:
        """Run a window of one batch, and one of many."""
        for count in sorted({1, self._size}):
            self._times.setdefault(count, []).append(self._run(count))

    def pace(self) -> Pace:
        """Return the pace from the mean times, which include slow windows as a long training does."""
        windows = self._times or {1: [self._first_time]}
        count, single = max(windows), float(np.mean(windows[1]))
        many = float(np.mean(windows[count]))
        # On a busy machine, a window of one batch may take longer than one of many.
        per_batch = (many - single) / (count - 1) if many > single else many / count
        low, high = np.quantile(np.asarray(windows[count]) / many, (0.1, 0.9))
        return Pace(
            fixed=max(0.0, many - count * per_batch), per_batch=per_batch, low=float(low), high=float(high)
        )


class TimedPasses:
    """Measures training and validation of one network, in alternating windows."""

    def __init__(self, network: Any, features: Features, training: Training) -> None:
        self._network, self._features, self._training = network, features, training
        batches = [-(-len(split) // training.batch_size) for split in (features.train, features.validation)]
        self._steps, validation_steps = batches
        self.training_windows = TimingWindows(self._fit, self._steps)
        self.validation_windows = (
            TimingWindows(self._evaluate, validation_steps) if validation_steps else None
        )

    def warm_up(self) -> float:
        """Compile training and validation, and return the seconds of the compilation."""
        seconds = self._measure_compile_time(self.training_windows.warm_up)
        remainder = len(self._features.train) % self._training.batch_size
        if remainder and self._steps > 1 and self._network.jit_compile:  # XLA compiles each batch size
            last = Subset(self._features.train, np.arange(remainder))
            seconds += self._measure_compile_time(lambda: self._time_fit(self._shuffle(last)))
        if self.validation_windows:
            seconds += self._measure_compile_time(self.validation_windows.warm_up)
        return seconds

    def run(self, seconds: float) -> None:
        """Measure windows, three of training for each one of validation."""
        end = time.perf_counter() + seconds
        latest_end = end + EXTRA_SECONDS
        self.training_windows.choose_size(seconds / 10)
        if self.validation_windows and time.perf_counter() < latest_end:
            self.validation_windows.choose_size(seconds / 20)
        count = 0
        while (now := time.perf_counter()) < end or (count < MIN_WINDOWS and now < latest_end):
            if self.validation_windows and count % 4 == 3:
                self.validation_windows.measure()
            else:
                self.training_windows.measure()
            count += 1

    @staticmethod
    def _measure_compile_time(first: Callable[[], float]) -> float:
        """Return the seconds of a first call, with its overhead, minus those that a second call returns."""
        wall, _ = measure_time(first)
        return max(0.0, wall - first())

    def _fit(self, steps: int) -> float:
        batches = self._shuffle(self._features.train)
        return self._time_fit(batches if steps == self._steps else batches.take(steps))

    def _shuffle(self, examples: Any) -> Any:
        return data.shuffled_batches(examples, self._training.batch_size, self._training.seed)

    def _time_fit(self, batches: Any) -> float:
        seconds, _ = measure_time(
            lambda: self._network.fit(batches, callbacks=[FailOnNonFinite()], shuffle=False, verbose=0)
        )
        return seconds

    def _evaluate(self, steps: int) -> float:
        clock = EvaluationClock()
        batches = data.ordered_batches(self._features.validation, self._training.batch_size).take(steps)
        self._network.evaluate(batches, callbacks=[clock], verbose=0)
        return clock.seconds


class EvaluationClock(keras.callbacks.Callback):  # type: ignore[misc]
    """Measures an evaluation without the overhead of Keras."""

    def on_test_begin(self, logs: Any = None) -> None:
        self._began = time.perf_counter()

    def on_test_end(self, logs: Any = None) -> None:
        self.seconds = time.perf_counter() - self._began


def _get_batch_size(workload: TrainingWorkload) -> int:
    return min(workload.training.batch_size, workload.training_examples)


def _write_random_features(workload: TrainingWorkload, folder: Path) -> None:
    """Write random examples in the shape of the model's input, limited to MAX_RANDOM_BYTES."""
    folder.mkdir()
    schema: Schema = workload.example_schema
    example_bytes = int(np.prod(schema.shape)) * np.dtype(schema.dtype).itemsize
    maximum = max(2 * _get_batch_size(workload), MAX_RANDOM_BYTES // example_bytes)
    random, problem = np.random.default_rng(0), problems.get_problem(schema.problem)
    splits = {
        "train": min(maximum, workload.training_examples),
        "validation": min(maximum, workload.validation_examples),
    }
    for split, size in splits.items():
        with ShardWriter(folder, split, schema.shape, schema.dtype) as writer:
            examples = random.integers(0, 256, (size, *schema.shape), np.uint8).astype(schema.dtype)
            writer.append(examples, problem.draw_random_targets(schema, size, random))
    artifacts.write(folder / "schema.json", schema.model_copy(update={"splits": splits}))
    artifacts.write(folder / "normalization.json", workload.normalization)


def _measure_device_memory() -> int | None:
    if BACKEND != "tensorflow" or not tf.config.list_physical_devices("GPU"):
        return None
    return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])


def main() -> None:
    """Read the request, probe, and write the result; in a pod, as its termination message."""
    with step("probe"):
        interface.check_interface("train")  # a pod runs the image of train
        first, *paths = sys.argv[1:]
        if paths:
            request = artifacts.read(Path(first), ProbeRequest)
        else:
            request = ProbeRequest.model_validate_json(first)
            log(f"probing on {list_devices()[0]} with {BACKEND}")
        with tempfile.TemporaryDirectory() as scratch:
            result = probe(request, Path(scratch))
    if output := Path(paths[0]) if paths else termination_log():
        output.write_text(result.model_dump_json(), encoding="utf-8")  # in place: in a pod, it is a mount


if __name__ == "__main__":
    main()
