"""examples/cifar10.yaml, the tutorial, from an official archive to answers over HTTP."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLE = Path(__file__).parents[3] / "examples" / "cifar10.yaml"
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.mark.soak  # ten epochs; make test reads both layouts in tests/unit/ingest and runs a user's images
@pytest.mark.parametrize("layout", ["binary", "python"])
def test_the_tutorial_from_the_archive_to_predictions(workspace, cifar10_archive, layout):
    archive = cifar10_archive(workspace.folder / "cifar.tar.gz", layout, images_per_batch=200)
    summary = workspace.json("run", EXAMPLE, settings=(f"data.source={archive}", "data.validation=100"))
    assert (summary["decision"], summary["version"]) == ("promote", 1)
    assert summary["metrics"]["rows"] == 200
    manifest = workspace.json("models", "show", "cifar10")
    (given,), (output,) = manifest["signature"]["inputs"], manifest["signature"]["outputs"]
    assert (given["shape"], given["dtype"], output["names"]) == ([32, 32, 3], "uint8", CLASSES)
    assert given["image"] == {"height": 32, "width": 32, "channels": 3, "resize": "stretch"}
    assert set(manifest["files"]) >= {
        "model.keras",
        "model.onnx",
        "saved_model/saved_model.pb",
        "report.html",
    }
    version = workspace.folder / "version"
    workspace.models.fetch("cifar10", 1, version)

    pictures, labels = held_out(workspace)
    np.save(workspace.folder / "batch.npy", pictures)
    Image.fromarray(pictures[0]).resize((64, 48)).convert("RGBA").save(workspace.folder / "one.png")
    with workspace.serving("cifar10") as url:
        batch = workspace.json("predict", "cifar10", workspace.folder / "batch.npy", "--url", url)[
            "predictions"
        ]
        (one,) = workspace.json("predict", "cifar10", workspace.folder / "one.png", "--url", url)[
            "predictions"
        ]
    assert one["answer"] in CLASSES
    assert sum(one["values"].values()) == pytest.approx(1, abs=1e-3)
    probabilities = [list(answer["values"].values()) for answer in batch]
    answers = keras_predicts(version / "model.keras", pictures)
    np.testing.assert_allclose(probabilities, answers, atol=1e-4)
    assert np.mean(np.argmax(probabilities, axis=1) == labels) > 0.7


def held_out(workspace) -> tuple[np.ndarray, np.ndarray]:
    """Return test pictures (50, 32, 32, 3) and their labels, as ingest read them from the archive."""
    raw = next((workspace.folder / ".modelyard" / "runs").glob("*/artifacts/*/ingest/raw"))
    shard = np.load(raw / "test-00000-of-00001.npy"), np.load(raw / "test-00000-of-00001.targets.npy")
    return shard[0][:50], shard[1][:50]


def keras_predicts(path: Path, pictures: np.ndarray) -> np.ndarray:
    """Return what the saved .keras file gives: loaded as the tutorial does, without modelyard."""
    script = (
        "import keras, numpy, sys;"
        "model = keras.saving.load_model(sys.argv[1]);"
        "numpy.save(sys.argv[3], model.predict(numpy.load(sys.argv[2]), verbose=0))"
    )
    given, answered = path.with_name("pictures.npy"), path.with_name("answers.npy")
    np.save(given, pictures)
    subprocess.run([sys.executable, "-c", script, path, given, answered], check=True, capture_output=True)
    return np.load(answered)
