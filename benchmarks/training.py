"""Training beside the tutorial's own script, at equal maths: `make bench-training`.

The same rows, layers, optimizer, batch and validation, each side in a separate process, in turns. Both
count the training rows a second after the first epoch, validation included; the ratio is the median of the
rounds' own ratios. Takes about three minutes on two cores. Where the CPU multiplies bfloat16, mixed precision
with batches of 128 follows; its accuracy has to be in the interval of the tutorial's.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from measure import Result, finished, paired, result, show, turns
from modelyard.components import artifacts
from modelyard.components.artifacts import History, Normalization, Schema
from modelyard.components.problems import intervals
from modelyard.components.shards import ShardWriter
from modelyard.components.train.settings import Training
from modelyard.components.train.spec import TrainSpec

HERE = Path(__file__).parent
ROUNDS, EPOCHS = 7, 4
PLAIN = Training(epochs=EPOCHS)
MIXED = Training(epochs=EPOCHS, batch_size=128, precision="mixed_bfloat16")
BFLOAT16 = ("avx512_bf16", "amx_bf16")  # flags of /proc/cpuinfo
ROWS = {"train": 6400, "validation": 1000}
SHAPE, CLASSES = (32, 32, 3), 10
TRAIN = """
import sys
from modelyard.components.train.spec import TrainSpec
from modelyard.components.train.trainer import train
train(sys.argv[1], TrainSpec.of(sys.argv[2]), "", *sys.argv[3:])
"""


def samples_per_second(
    training: Training = PLAIN, measure: str = "training, tutorial's model", goal: str = ">= 1.3x"
) -> list[Result]:
    """Return the rows a second of the train step beside the tutorial's script, and both accuracies."""
    accuracies = {}

    def pace_of(name: str, run: Callable[[], tuple[float, float]]) -> Callable[[], float]:
        def pace() -> float:
            found, accuracies[name] = run()
            return found

        return pace

    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        generate(scratch)
        contenders = {
            "ours": pace_of("ours", lambda: ours(scratch, training)),
            "tutorial": pace_of("tutorial", lambda: tutorial(scratch)),
        }
        pace = turns(ROUNDS, contenders)
    rows = ROWS["validation"]
    low, high = map(float, intervals.wilson(round(accuracies["tutorial"] * rows), rows))
    return [
        paired(measure, pace["ours"], pace["tutorial"], "samples/s", goal),
        result(
            f"{measure}: accuracy", accuracies["ours"], accuracies["tutorial"], "", f"{low:.3f} to {high:.3f}"
        ),
    ]


def generate(scratch: Path) -> None:
    """Write the same pictures, one of ten patterns under noise each, as features and as arrays."""
    random = np.random.default_rng(0)
    patterns = random.integers(0, 256, (CLASSES, *SHAPE))
    features = scratch / "features"
    features.mkdir()
    arrays = {}
    for split, short in (("train", "train"), ("validation", "valid")):
        labels = random.integers(0, CLASSES, ROWS[split])
        noise = random.integers(0, 256, (ROWS[split], *SHAPE))
        pictures = ((patterns[labels] + noise) // 2).astype(np.uint8)
        with ShardWriter(features, split, SHAPE, "uint8") as writer:
            writer.append(pictures, labels)
        arrays |= {f"x_{short}": pictures, f"y_{short}": labels}
    np.savez(scratch / "arrays.npz", **arrays)
    classes = tuple(str(number) for number in range(CLASSES))
    schema = Schema(shape=SHAPE, dtype="uint8", problem="classification", names=classes, splits=ROWS)
    artifacts.write(features / "schema.json", schema)
    artifacts.write(features / "normalization.json", Normalization(deviation=(255.0,)))


def ours(scratch: Path, training: Training) -> tuple[float, float]:
    """Run the step in a process and return the pace and the accuracy that it wrote into its history."""
    places = [str(scratch / name) for name in ("model", "history")]
    spec = TrainSpec(training=training).text()
    finished([sys.executable, "-c", TRAIN, str(scratch / "features"), spec, *places])
    history = artifacts.read(scratch / "history" / "history.json", History)
    return history.samples_per_second, history.metrics["val_accuracy"][-1]


def tutorial(scratch: Path) -> tuple[float, float]:
    """Run the tutorial's script in a process and return what it printed."""
    printed = finished([sys.executable, HERE / "tutorial.py", scratch / "arrays.npz", str(EPOCHS)])
    pace, accuracy = map(float, printed.split())
    return pace, accuracy


def main() -> None:
    """Measure, and print the results."""
    results = samples_per_second()
    if set(BFLOAT16) & set(Path("/proc/cpuinfo").read_text().split()):
        results += samples_per_second(MIXED, "mixed_bfloat16, batches of 128", ">= 2.5x")
    else:
        print(f"mixed_bfloat16 is not measured: this CPU has neither {' nor '.join(BFLOAT16)}.")
    show("training", results)


if __name__ == "__main__":
    main()
