"""Runs real training steps for some seconds and says how long each part takes.

    python -m modelyard.components.train.probe TRIAL.json PROBED.json
    python -m modelyard.components.train.probe '{"question": …}'  # in a pod: prints the answer

Three passes take turns: the step with its real input, the step with a batch in memory, the input alone. Each
runs in windows of one step and of many, so that what a call costs and what a step costs come apart. What is
compiled in the first calls is measured, and kept out of the windows. Where a step takes so long that the time
is over before all had their turns, there are fewer windows.
"""

import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.components import artifacts, lifeline
from modelyard.components.artifacts import Schema
from modelyard.components.errors import TooLargeError
from modelyard.components.memory import memory_here
from modelyard.components.shards import ShardWriter
from modelyard.components.train import data, trace
from modelyard.components.train import model as networks
from modelyard.components.train.backend import BACKEND, devices, tf, translate_out_of_memory
from modelyard.components.train.callbacks import Clock, Finite
from modelyard.components.train.data import CHUNK_BYTES, Features
from modelyard.components.train.export import export
from modelyard.components.train.measured import ANSWER, Probed, Traced, Trial
from modelyard.components.train.settings import Model, Training
from modelyard.components.train.windows import FEW, Windows, timed

NOISE_BYTES = 64 * 2**20
CHECKED_ROWS = 32
LEAST_TURNS = 4
PATIENCE = 60.0  # seconds after its time in which a probe may still take its least turns


def probe(trial: Trial, scratch: Path) -> Probed:
    """Return what the parts of training take.

    Args:
        trial: the model, its features and how long to run.
        scratch: an empty folder.

    Raises:
        DataError: the features are malformed.
        TooLargeError: it needs more memory than there is.
        TrainError: the model cannot be built, trained or exported.
    """
    began, load = time.perf_counter(), os.getloadavg()[0] / (os.cpu_count() or 1)
    question, device = trial.question, devices()[0]
    traced = trace.trace(question)
    _check_room(traced, device)
    features = Path(trial.features) if trial.features else _noise(trial, scratch / "features")
    opening, rows = timed(lambda: Features.read(features))
    settings = Model.model_validate(question.architecture)
    with trace.explained(question, "Probing"), translate_out_of_memory(traced.batch_size):
        building, (network, plan) = timed(lambda: trace.compiled(question))
        course = Course(network, rows, plan)
        first_epoch, first_validation = course.warm()
        course.run(trial.seconds)
        exported = networks.with_probabilities(network, settings.logits)
        checked = rows.train.gather(np.arange(min(CHECKED_ROWS, len(rows.train))))
        exporting = []
        for name in ("rehearsal", "model"):
            (scratch / name).mkdir()
            exporting.append(timed(partial(export, exported, rows.schema, checked, scratch / name))[0])
    epoch = course.epoch.pace()
    return Probed(
        device=device,
        backend=BACKEND,
        age=None,
        load=load,
        synthetic=not trial.features,
        steps=course.steps,
        opening=opening,
        building=building,
        export=exporting[0],
        export_again=exporting[1],
        first_epoch=max(0.0, first_epoch - epoch.seconds(1)),
        first_validation=first_validation,
        epoch=epoch,
        validation=course.validation.pace() if course.validation else None,
        compute=course.compute.pace(),
        half=course.half.pace() if course.half else None,
        input=course.input.pace(),
        score=_score(scratch / "model" / "model.onnx", checked),
        memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        device_memory=_device_memory(),
        model_bytes=sum(path.stat().st_size for path in (scratch / "model").rglob("*") if path.is_file()),
        traced=traced,
        inside=time.perf_counter() - began,
    )


class Course:
    """The passes over one network; `steps` are those of a whole epoch of the rows that are there."""

    def __init__(self, network: Any, rows: Features, plan: Training) -> None:
        self._network, self._rows, self._plan = network, rows, plan
        self._size = min(plan.batch_size, len(rows.train))
        self.steps = -(-len(rows.train) // plan.batch_size)
        held, few = -(-len(rows.validation) // plan.batch_size), self._size // 2
        self._chunk = self._in_memory()
        self.epoch = Windows(self._fit, self.steps)
        self.compute = Windows(partial(self._fit_memory, self._size), self.steps)
        self.half = Windows(partial(self._fit_memory, few), self.steps) if few else None
        self.input = Windows(self._read, self.steps)
        self.validation = Windows(self._evaluate, held) if held else None

    def warm(self) -> tuple[float, float]:
        """Compile everything; return what the first training step and the first validation took more."""
        first, _ = timed(self.epoch.warm)
        first += self._last_batch()
        validation = 0.0
        if self.validation:
            wall, _ = timed(self.validation.warm)
            validation = max(0.0, wall - self.validation.warm())
        for one in (self.compute, self.half, self.input):
            if one:
                one.warm()  # on an accelerator, each size of a batch is compiled
        return first, validation

    def run(self, seconds: float) -> None:
        """Let the passes take turns, the training itself every other turn."""
        others = [self.compute, self.input, *(one for one in (self.half, self.validation) if one)]
        until = time.perf_counter() + seconds
        late = until + PATIENCE
        self.epoch.settle(seconds / 10, FEW)
        for one in others:
            if time.perf_counter() < late:
                one.settle(seconds / 40)
        turn = 0
        while (now := time.perf_counter()) < until or (turn < LEAST_TURNS and now < late):
            self.epoch.turn()
            others[turn % len(others)].turn()
            turn += 1

    def _last_batch(self) -> float:
        """Return what compiling the last, smaller batch of an epoch takes, where each size is compiled."""
        rest = len(self._rows.train) % self._size
        if not rest or not self._network.jit_compile:
            return 0.0
        return max(0.0, self._fit_memory(rest, 1) - self._fit_memory(rest, 1))

    def _fit(self, steps: int) -> float:
        batches = data.shuffled(self._rows.train, self._plan.batch_size, self._plan.seed)
        return self._timed_fit(batches if steps == self.steps else batches.take(steps))

    def _fit_memory(self, size: int, steps: int) -> float:
        examples, labels = self._chunk
        repeated = tf.data.Dataset.from_tensors((examples, labels)).repeat(-(-steps * size // len(labels)))
        batches = repeated.rebatch(size).take(steps).prefetch(2)
        batches = batches.apply(tf.data.experimental.assert_cardinality(steps))
        return self._timed_fit(batches.with_options(data.one_quiet_thread()))

    def _timed_fit(self, batches: Any) -> float:
        seconds, _ = timed(lambda: self._network.fit(batches, callbacks=[Finite()], shuffle=False, verbose=0))
        return seconds

    def _read(self, steps: int) -> float:
        batches = data.shuffled(self._rows.train, self._plan.batch_size, self._plan.seed).take(steps)
        seconds, _ = timed(lambda: batches.reduce(np.int64(0), lambda count, _: count + 1))
        return seconds

    def _evaluate(self, steps: int) -> float:
        batches = data.ordered(self._rows.validation, self._plan.batch_size).take(steps)
        clock = Clock()
        self._network.evaluate(batches, callbacks=[clock], verbose=0)
        return clock.seconds

    def _in_memory(self) -> tuple[Any, Any]:
        """Return some whole batches, as many as the input hands over at once."""
        train, size = self._rows.train, self._size
        row = train.gather(np.arange(1)).nbytes
        few = np.arange(size * max(1, min(16, CHUNK_BYTES // (size * max(1, row))))) % len(train)
        return train.gather(few), train.labels[few]


def _check_room(traced: Traced, device: str) -> None:
    """Raise before the variables are made, when the memory of a processor is too small for them."""
    needed, there = traced.weights + traced.gradients + traced.optimizer, memory_here()
    if device.startswith("cpu") and needed > there:
        raise TooLargeError(
            f"The model's variables and gradients take {needed / 1e9:.3g} GB and there are {there / 1e9:.3g} "
            "GB here, so there is nothing to probe. Take a smaller model or a larger machine."
        )


def _noise(trial: Trial, directory: Path) -> Path:
    """Write features of noise of the model's shape, as many rows as there are, or as fit into a bound."""
    directory.mkdir()
    question = trial.question
    schema: Schema = question.examples
    row = int(np.prod(schema.shape)) * np.dtype(schema.dtype).itemsize
    plan = Training.model_validate(question.training)
    most = max(plan.batch_size * 2, NOISE_BYTES // row)
    random = np.random.default_rng(0)
    splits = {}
    for split, asked in (("train", question.rows), ("validation", question.validation)):
        rows = min(most, most if asked is None else asked)
        with ShardWriter(directory, split, schema.shape, schema.dtype) as writer:
            for start in range(0, rows, 1024):
                few = min(1024, rows - start)
                noise = random.integers(0, 256, (few, *schema.shape)).astype(schema.dtype)
                writer.append(noise, random.integers(0, len(schema.classes), few))
        splits[split] = rows
    artifacts.write(directory / "schema.json", schema.model_copy(update={"splits": splits}))
    artifacts.write(directory / "normalization.json", question.normalization)
    return directory


def _score(path: Path, rows: Any) -> float:
    """Return the seconds that ONNX Runtime takes for a row."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    run: Callable[[], Any] = lambda: session.run(None, {"input": rows})  # noqa: E731
    run()
    return min(timed(run)[0] for _ in range(5)) / len(rows)


def _device_memory() -> int | None:
    if BACKEND != "tensorflow" or not tf.config.list_physical_devices("GPU"):
        return None
    return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])


def _age() -> float | None:
    """Return the seconds since this process began, its start and its imports included."""
    status, uptime = Path("/proc/self/stat"), Path("/proc/uptime")
    if not status.is_file():
        return None
    began = float(status.read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return float(uptime.read_text().split()[0]) - began


def main() -> None:
    """Read the trial, probe, and write what was found, or print it when there is no file for it."""
    lifeline.follow()
    asked, *answer = sys.argv[1:]
    trial = artifacts.read(Path(asked), Trial) if answer else Trial.model_validate_json(asked)
    if not answer:
        print(f"probing on {devices()[0]} with {BACKEND}", flush=True)  # noqa: T201
    with tempfile.TemporaryDirectory() as scratch:
        found = probe(trial, Path(scratch)).model_copy(update={"age": _age()})
    if answer:
        artifacts.write(Path(answer[0]), found)
    else:
        print(f"{ANSWER}{found.model_dump_json()}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
