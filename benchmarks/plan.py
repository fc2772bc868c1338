"""Compares the prediction of a probe with the time of the training: `make bench-plan`.

Six networks with three sizes of data are probed and then trained like the step `train`, in five alternating
rounds. All results are printed; the goal is a median absolute error of at most 10 %. It takes more than an
hour on two idle cores; `python benchmarks/plan.py --rounds 1` takes a fifth of that.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from measure import run_command
from modelyard.components import artifacts
from modelyard.components.artifacts import Normalization, Schema
from modelyard.components.shards import ShardWriter
from modelyard.components.train.measurement import ProbeRequest, ProbeResult, TrainingWorkload
from modelyard.components.train.settings import CodeLocation, Model, Training
from modelyard.components.train.spec import TrainSpec
from modelyard.pipelines.planning.measuring import run_in_process
from modelyard.pipelines.planning.plan import estimate_train_time
from training import TRAIN

NETWORKS = Path(__file__).parent / "networks"
SHAPE, CLASSES = (32, 32, 3), 10
CUSTOM_NETWORKS = ("depthwise", "recurrent", "attention")
MODELS: dict[str, dict[str, Any]] = {
    "dense": {"filters": [], "dense": [128, 64]},
    "tutorial": {},
    "wide": {"filters": [64, 96], "dense": [128]},
    **{name: {"build": f"networks:{name}", "code": str(NETWORKS)} for name in CUSTOM_NETWORKS},
}
EXAMPLES = {"small": 1_500, "medium": 5_000, "large": 15_000}
EPOCHS = {"small": 12, "medium": 6, "large": 3}
PROBE_SECONDS, GOAL = 15.0, 0.10


@dataclass(frozen=True)
class Measurement:
    """The time that a probe predicts for a training, and its actual time, in seconds."""

    model: str
    data: str
    round: int
    planned: float
    low: float
    high: float
    actual: float

    @property
    def error(self) -> float:
        """The relative error of the prediction."""
        return self.planned / self.actual - 1

    @property
    def inside(self) -> bool:
        """Whether the actual time is in the interval."""
        return self.low <= self.actual <= self.high


def main() -> None:
    """Probe and train; print each measurement, then a summary."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rounds", type=int, default=5)
    rounds = arguments.parse_args().rounds
    measurements = []
    print(
        f"{'round':>5} {'model':<10} {'examples':>8} {'planned':>8} {'interval':>16} {'actual':>8} "
        f"{'error':>7}"
    )
    with tempfile.TemporaryDirectory() as folder:
        data = {name: write_features(Path(folder) / name, examples) for name, examples in EXAMPLES.items()}
        for number in range(1, rounds + 1):
            for model in MODELS:
                for size, features in data.items():
                    measurements.append(measurement := measure(model, size, number, features))
                    interval = f"{measurement.low:.1f} to {measurement.high:.1f}"
                    print(
                        f"{number:>5} {model:<10} {EXAMPLES[size]:>8} {measurement.planned:>8.1f} "
                        f"{interval:>16} {measurement.actual:>8.1f} {measurement.error:>+7.1%}",
                        flush=True,
                    )
    print_summary(measurements)


def print_summary(measurements: list[Measurement]) -> None:
    """Print the median errors of each model and of all, and a JSON line per measurement."""
    for model in MODELS:
        errors = [abs(measurement.error) for measurement in measurements if measurement.model == model]
        print(f"{model:<10} median absolute error {statistics.median(errors):.1%} of {len(errors)}")
    median = statistics.median(abs(measurement.error) for measurement in measurements)
    inside = sum(measurement.inside for measurement in measurements)
    print(f"all        median absolute error {median:.1%} of {len(measurements)}, goal {GOAL:.0%}")
    print(f"           {inside} of {len(measurements)} inside the interval")
    for measurement in measurements:
        print(
            json.dumps(
                {**asdict(measurement), "error": round(measurement.error, 4), "inside": measurement.inside}
            )
        )


def measure(model: str, size: str, number: int, features: Path) -> Measurement:
    """Probe a model, then train it, each in a new process."""
    settings = Model.model_validate(MODELS[model])
    training = Training(epochs=EPOCHS[size])
    schema = artifacts.read(features / "schema.json", Schema)
    code = CodeLocation(url=settings.code).to_json() if settings.code else ""
    sha256 = artifacts.tree_sha256(NETWORKS) if settings.code else ""
    workload = TrainingWorkload(
        example_schema=schema,
        normalization=artifacts.read(features / "normalization.json", Normalization),
        model=settings,
        training=training,
        code=code,
        code_sha256=sha256,
        training_examples=schema.splits["train"],
        validation_examples=schema.splits["validation"],
        features=str(features),
    )
    probe, wall = run_in_process("probe", ProbeRequest(workload=workload, seconds=PROBE_SECONDS), ProbeResult)
    estimate = estimate_train_time(probe, wall, training, schema.splits).total
    with tempfile.TemporaryDirectory() as scratch:
        outputs = [str(Path(scratch) / name) for name in ("model", "history")]
        started = time.monotonic()
        spec = TrainSpec(
            model=settings,
            training=training,
            code=CodeLocation.from_json(code) if code else None,
            code_sha256=sha256,
        )
        run_command([sys.executable, "-c", TRAIN, str(features), spec.to_json(), *outputs])
        actual = time.monotonic() - started
    assert estimate.high is not None
    return Measurement(model, size, number, estimate.value, estimate.low, estimate.high, actual)


def write_features(folder: Path, examples: int) -> Path:
    """Write features: ten patterns with noise; a tenth of the number for validation."""
    random = np.random.default_rng(0)
    patterns = random.integers(0, 256, (CLASSES, *SHAPE))
    folder.mkdir()
    splits = {"train": examples, "validation": examples // 10}
    for split, count in splits.items():
        with ShardWriter(folder, split, SHAPE, "uint8") as writer:
            for start in range(0, count, 1000):
                labels = random.integers(0, CLASSES, min(1000, count - start))
                noise = random.integers(0, 256, (len(labels), *SHAPE))
                writer.append(((patterns[labels] + noise) // 2).astype(np.uint8), labels)
    classes = tuple(str(number) for number in range(CLASSES))
    artifacts.write(
        folder / "schema.json",
        Schema(shape=SHAPE, dtype="uint8", problem="classification", names=classes, splits=splits),
    )
    artifacts.write(folder / "normalization.json", Normalization(scale=(255.0,)))
    return folder


if __name__ == "__main__":
    main()
