"""examples/cifar10.yaml, the tutorial: all ten epochs, on an archive in each official layout."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLE = Path(__file__).parents[3] / "examples" / "cifar10.yaml"
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.mark.parametrize("layout", ["binary", "python"])
def test_the_tutorial_from_the_archive_to_a_batch_and_one_picture(yard, cifar10_archive, layout):
    archive = cifar10_archive(yard.folder / "cifar.tar.gz", layout, rows_per_batch=200)
    summary = yard.json("run", EXAMPLE, settings=(f"data.source={archive}", "data.validation=100"))
    assert (summary["decision"], summary["version"]) == ("promote", 1)
    assert summary["metrics"]["rows"] == 200
    manifest = yard.json("models", "show", "cifar10")
    assert manifest["signature"] == {
        "shape": [32, 32, 3],
        "dtype": "uint8",
        "classes": CLASSES,
        "image": {"height": 32, "width": 32, "channels": 3, "resize": "stretch"},
    }
    assert set(manifest["files"]) >= {
        "model.keras",
        "model.onnx",
        "saved_model/saved_model.pb",
        "report.html",
    }
    version = yard.folder / "version"
    yard.models.fetch("cifar10", 1, version)
    assert epochs(version) == 10

    pictures, labels = held_out(yard)
    np.save(yard.folder / "batch.npy", pictures)
    Image.fromarray(pictures[0]).resize((64, 48)).convert("RGBA").save(yard.folder / "one.png")
    with yard.serving("cifar10") as url:
        batch = yard.json("predict", "cifar10", yard.folder / "batch.npy", "--url", url)["predictions"]
        (one,) = yard.json("predict", "cifar10", yard.folder / "one.png", "--url", url)["predictions"]
    assert np.mean([answer["label"] for answer in batch] == np.take(CLASSES, labels)) > 0.7
    assert one["label"] in CLASSES
    assert sum(one["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    assert keras_says(version / "model.keras", pictures) == [answer["label"] for answer in batch]


def epochs(version: Path) -> int:
    return len(json.loads((version / "history.json").read_text())["metrics"]["val_accuracy"])


def held_out(yard) -> tuple[np.ndarray, np.ndarray]:
    """Return test pictures (50, 32, 32, 3) and their labels, as ingest read them from the archive."""
    raw = next((yard.folder / ".modelyard" / "runs").glob("*/artifacts/*/ingest/raw"))
    shard = np.load(raw / "test-00000-of-00001.npy"), np.load(raw / "test-00000-of-00001.labels.npy")
    return shard[0][:50], shard[1][:50]


def keras_says(path: Path, pictures: np.ndarray) -> list[str]:
    """Return the labels that the saved .keras file gives: loaded as the tutorial does, without modelyard."""
    script = (
        "import keras, numpy, sys;"
        "model = keras.saving.load_model(sys.argv[1]);"
        "print(*model.predict(numpy.load(sys.argv[2]), verbose=0).argmax(axis=1))"
    )
    np.save(path.with_name("pictures.npy"), pictures)
    command = [sys.executable, "-c", script, path, path.with_name("pictures.npy")]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [CLASSES[int(number)] for number in said.split()]
