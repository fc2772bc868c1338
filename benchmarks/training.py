"""Training beside the tutorial's own script, at equal maths: `make bench-training`.

The same rows, layers, optimizer, batch and validation, each side in a process of its own, in turns. Both
count the training rows a second after the first epoch, validation included; the ratio is the median of the
rounds' own ratios. Takes about three minutes on two cores.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from measure import Result, finished, paired, show, turns
from modelyard.components import artifacts
from modelyard.components.artifacts import History, Normalization, Schema
from modelyard.components.shards import ShardWriter
from modelyard.components.train.settings import Training
from modelyard.components.train.spec import TrainSpec

HERE = Path(__file__).parent
ROUNDS, EPOCHS = 7, 4
ROWS = {"train": 6400, "validation": 1000}
SHAPE, CLASSES = (32, 32, 3), 10
TRAIN = """
import sys
from modelyard.components.train.spec import TrainSpec
from modelyard.components.train.trainer import train
train(sys.argv[1], TrainSpec.of(sys.argv[2]), "", *sys.argv[3:])
"""


def samples_per_second() -> Result:
    """Return the rows a second of the train step beside the tutorial's script."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        generate(scratch)
        contenders = {"ours": lambda: ours(scratch), "tutorial": lambda: tutorial(scratch)}
        pace = turns(ROUNDS, contenders)
    return paired("training, tutorial's model", pace["ours"], pace["tutorial"], "samples/s", ">= 1.3x")


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


def ours(scratch: Path) -> float:
    """Run the step in a process and return what it wrote into its history."""
    places = [str(scratch / name) for name in ("model", "history")]
    spec = TrainSpec(training=Training(epochs=EPOCHS)).text()
    finished([sys.executable, "-c", TRAIN, str(scratch / "features"), spec, *places])
    return artifacts.read(scratch / "history" / "history.json", History).samples_per_second


def tutorial(scratch: Path) -> float:
    """Run the tutorial's script in a process and return what it printed."""
    return float(finished([sys.executable, HERE / "tutorial.py", scratch / "arrays.npz", str(EPOCHS)]))


if __name__ == "__main__":
    show("training", [samples_per_second()])
