"""Compares the training speed with the script of the Keras tutorial: `make bench-training`.

Both train on the same examples with the same layers, optimizer, batch size and validation, alternately in
separate processes, which takes about three minutes on two cores. The speed is training examples per second
after the first epoch, including validation; the ratio is the median of the ratios of all rounds. If the CPU
supports bfloat16, mixed precision with batches of 128 is measured too; its accuracy must be in the confidence
interval of the tutorial's accuracy.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from measure import Result, make_paired_result, make_result, print_results, run_command, run_interleaved
from modelyard.components import artifacts
from modelyard.components.artifacts import History, Normalization, Schema
from modelyard.components.problems import intervals
from modelyard.components.shards import ShardWriter
from modelyard.components.train.settings import Training
from modelyard.components.train.spec import TrainSpec

BENCHMARKS = Path(__file__).parent
ROUNDS, EPOCHS = 7, 4
PLAIN = Training(epochs=EPOCHS)
MIXED = Training(epochs=EPOCHS, batch_size=128, precision="mixed_bfloat16")
BFLOAT16 = ("avx512_bf16", "amx_bf16")  # flags of /proc/cpuinfo
EXAMPLES = {"train": 6400, "validation": 1000}
SHAPE, CLASSES = (32, 32, 3), 10
TRAIN = """
import sys
from modelyard.components.train.spec import TrainSpec
from modelyard.components.train.trainer import train
train(sys.argv[1], TrainSpec.from_json(sys.argv[2]), "", *sys.argv[3:])
"""


def examples_per_second(
    training: Training = PLAIN, measure: str = "training, tutorial's model", goal: str = ">= 1.4x"
) -> list[Result]:
    """Return examples per second and accuracy of the train step and of the tutorial's script."""
    accuracies = {}

    def record_accuracy(name: str, run: Callable[[], tuple[float, float]]) -> Callable[[], float]:
        def run_once() -> float:
            speed, accuracies[name] = run()
            return speed

        return run_once

    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        write_examples(scratch)
        contenders = {
            "modelyard": record_accuracy("modelyard", lambda: run_modelyard(scratch, training)),
            "tutorial": record_accuracy("tutorial", lambda: run_tutorial(scratch)),
        }
        speeds = run_interleaved(ROUNDS, contenders)
    count = EXAMPLES["validation"]
    low, high = map(float, intervals.wilson_interval(round(accuracies["tutorial"] * count), count))
    return [
        make_paired_result(measure, speeds["modelyard"], speeds["tutorial"], "examples/s", goal),
        make_result(
            f"{measure}: accuracy",
            accuracies["modelyard"],
            accuracies["tutorial"],
            "",
            f"{low:.3f} to {high:.3f}",
        ),
    ]


def write_examples(scratch: Path) -> None:
    """Write images, each of which is one of ten patterns with noise, as features and as arrays."""
    random = np.random.default_rng(0)
    patterns = random.integers(0, 256, (CLASSES, *SHAPE))
    features = scratch / "features"
    features.mkdir()
    arrays = {}
    for split, short in (("train", "train"), ("validation", "valid")):
        labels = random.integers(0, CLASSES, EXAMPLES[split])
        noise = random.integers(0, 256, (EXAMPLES[split], *SHAPE))
        images = ((patterns[labels] + noise) // 2).astype(np.uint8)
        with ShardWriter(features, split, SHAPE, "uint8") as writer:
            writer.append(images, labels)
        arrays |= {f"x_{short}": images, f"y_{short}": labels}
    np.savez(scratch / "arrays.npz", **arrays)
    classes = tuple(str(number) for number in range(CLASSES))
    schema = Schema(shape=SHAPE, dtype="uint8", problem="classification", names=classes, splits=EXAMPLES)
    artifacts.write(features / "schema.json", schema)
    artifacts.write(features / "normalization.json", Normalization(scale=(255.0,)))


def run_modelyard(scratch: Path, training: Training) -> tuple[float, float]:
    """Run the step in a process and return speed and accuracy from its history."""
    outputs = [str(scratch / name) for name in ("model", "history")]
    spec = TrainSpec(training=training).to_json()
    run_command([sys.executable, "-c", TRAIN, str(scratch / "features"), spec, *outputs])
    history = artifacts.read(scratch / "history" / "history.json", History)
    return history.examples_per_second, history.metrics["val_accuracy"][-1]


def run_tutorial(scratch: Path) -> tuple[float, float]:
    """Run the tutorial's script in a process and return the speed and accuracy that it prints."""
    output = run_command([sys.executable, BENCHMARKS / "tutorial.py", scratch / "arrays.npz", str(EPOCHS)])
    speed, accuracy = map(float, output.split())
    return speed, accuracy


def main() -> None:
    """Measure, and print the results."""
    results = examples_per_second()
    if set(BFLOAT16) & set(Path("/proc/cpuinfo").read_text().split()):
        results += examples_per_second(MIXED, "mixed_bfloat16, batches of 128", ">= 2.5x")
    else:
        print(f"mixed_bfloat16 is not measured: this CPU has neither {' nor '.join(BFLOAT16)}.")
    print_results("training", results)


if __name__ == "__main__":
    main()
