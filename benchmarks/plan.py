"""What a probe predicts beside what training takes: `make bench-plan`.

Six networks and three sizes of data; each is probed and then trained, as the step `train` is, in turns and
five times over. Every row is printed and none left out; the median of the absolute errors is to be at most 10
%. Takes more than an hour on two cores that nobody else uses; `python benchmarks/plan.py --rounds 1` a fifth
of that.
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

from measure import finished
from modelyard.components import artifacts
from modelyard.components.artifacts import Normalization, Schema
from modelyard.components.shards import ShardWriter
from modelyard.components.train.measurement import ProbeRequest, ProbeResult, TrainingWorkload
from modelyard.components.train.settings import CodeLocation, Model, Training
from modelyard.components.train.spec import TrainSpec
from modelyard.pipelines.planning.measuring import run_in_process
from modelyard.pipelines.planning.plan import train_time
from training import TRAIN

NETWORKS = Path(__file__).parent / "networks"
SHAPE, CLASSES = (32, 32, 3), 10
OWN = ("depthwise", "recurrent", "attention")
MODELS: dict[str, dict[str, Any]] = {
    "dense": {"filters": [], "dense": [128, 64]},
    "tutorial": {},
    "wide": {"filters": [64, 96], "dense": [128]},
    **{name: {"build": f"networks:{name}", "code": str(NETWORKS)} for name in OWN},
}
ROWS = {"small": 1_500, "medium": 5_000, "large": 15_000}
EPOCHS = {"small": 12, "medium": 6, "large": 3}
PROBE_SECONDS, GOAL = 15.0, 0.10


@dataclass(frozen=True)
class Line:
    """One probe and the training after it, in seconds."""

    model: str
    data: str
    round: int
    planned: float
    low: float
    high: float
    actual: float

    @property
    def error(self) -> float:
        """Return by which share of it the actual time was missed."""
        return self.planned / self.actual - 1

    @property
    def inside(self) -> bool:
        """Say whether the actual time was in the interval."""
        return self.low <= self.actual <= self.high


def main() -> None:
    """Probe and train, print each line as it comes, then what comes of all."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rounds", type=int, default=5)
    rounds = arguments.parse_args().rounds
    lines = []
    print(
        f"{'round':>5} {'model':<10} {'rows':>6} {'planned':>8} {'interval':>16} {'actual':>8} {'error':>7}"
    )
    with tempfile.TemporaryDirectory() as folder:
        data = {name: generate(Path(folder) / name, rows) for name, rows in ROWS.items()}
        for number in range(1, rounds + 1):
            for model in MODELS:
                for size, features in data.items():
                    lines.append(line := measure(model, size, number, features))
                    interval = f"{line.low:.1f} to {line.high:.1f}"
                    print(
                        f"{number:>5} {model:<10} {ROWS[size]:>6} {line.planned:>8.1f} {interval:>16} "
                        f"{line.actual:>8.1f} {line.error:>+7.1%}",
                        flush=True,
                    )
    conclude(lines)


def conclude(lines: list[Line]) -> None:
    """Print the median errors, of each model and of all, and one JSON object a line for scripts."""
    for model in MODELS:
        errors = [abs(line.error) for line in lines if line.model == model]
        print(f"{model:<10} median absolute error {statistics.median(errors):.1%} of {len(errors)}")
    median = statistics.median(abs(line.error) for line in lines)
    inside = sum(line.inside for line in lines)
    print(f"all        median absolute error {median:.1%} of {len(lines)}, goal {GOAL:.0%}")
    print(f"           {inside} of {len(lines)} inside the interval")
    for line in lines:
        print(json.dumps({**asdict(line), "error": round(line.error, 4), "inside": line.inside}))


def measure(model: str, size: str, number: int, features: Path) -> Line:
    """Probe a model, then train it, each in a process of its own."""
    settings = Model.model_validate(MODELS[model])
    plan = Training(epochs=EPOCHS[size])
    schema = artifacts.read(features / "schema.json", Schema)
    code = CodeLocation(url=settings.code).text() if settings.code else ""
    sha256 = artifacts.tree_sha256(NETWORKS) if settings.code else ""
    workload = TrainingWorkload(
        example_schema=schema,
        normalization=artifacts.read(features / "normalization.json", Normalization),
        model=settings,
        training=plan,
        code=code,
        code_sha256=sha256,
        training_examples=schema.splits["train"],
        validation_examples=schema.splits["validation"],
        features=str(features),
    )
    probed, wall = run_in_process(
        "probe", ProbeRequest(workload=workload, seconds=PROBE_SECONDS), ProbeResult
    )
    found = train_time(probed, wall, plan, schema.splits).total
    with tempfile.TemporaryDirectory() as scratch:
        places = [str(Path(scratch) / name) for name in ("model", "history")]
        began = time.monotonic()
        spec = TrainSpec(
            model=settings, training=plan, code=CodeLocation.of(code) if code else None, code_sha256=sha256
        )
        finished([sys.executable, "-c", TRAIN, str(features), spec.text(), *places])
        actual = time.monotonic() - began
    assert found.high is not None
    return Line(model, size, number, found.value, found.low, found.high, actual)


def generate(directory: Path, rows: int) -> Path:
    """Write features: one of ten patterns under noise each, a tenth of the rows for validation."""
    random = np.random.default_rng(0)
    patterns = random.integers(0, 256, (CLASSES, *SHAPE))
    directory.mkdir()
    splits = {"train": rows, "validation": rows // 10}
    for split, count in splits.items():
        with ShardWriter(directory, split, SHAPE, "uint8") as writer:
            for start in range(0, count, 1000):
                labels = random.integers(0, CLASSES, min(1000, count - start))
                noise = random.integers(0, 256, (len(labels), *SHAPE))
                writer.append(((patterns[labels] + noise) // 2).astype(np.uint8), labels)
    classes = tuple(str(number) for number in range(CLASSES))
    artifacts.write(
        directory / "schema.json",
        Schema(shape=SHAPE, dtype="uint8", problem="classification", names=classes, splits=splits),
    )
    artifacts.write(directory / "normalization.json", Normalization(deviation=(255.0,)))
    return directory


if __name__ == "__main__":
    main()
