"""examples/cifar10.yaml from an archive in an official layout to predictions over HTTP."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLE = Path(__file__).parents[3] / "examples" / "cifar10.yaml"
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.mark.soak  # ten epochs; tests/unit/ingest reads both layouts
@pytest.mark.parametrize("layout", ["binary", "python"])
def test_the_tutorial_from_the_archive_to_predictions(workspace, cifar10_archive, layout):
    archive = cifar10_archive(workspace.folder / "cifar.tar.gz", layout, images_per_batch=200)
    summary = workspace.json("run", EXAMPLE, settings=(f"data.source={archive}", "data.validation=100"))
    assert (summary["decision"], summary["version"]) == ("promote", 1)
    assert summary["metrics"]["examples"] == 200
    manifest = workspace.json("models", "show", "cifar10")
    (input_tensor,), (output,) = manifest["signature"]["inputs"], manifest["signature"]["outputs"]
    assert (input_tensor["shape"], input_tensor["dtype"], output["names"]) == ([32, 32, 3], "uint8", CLASSES)
    assert input_tensor["image"] == {"height": 32, "width": 32, "channels": 3, "resize": "stretch"}
    assert set(manifest["files"]) >= {
        "model.keras",
        "model.onnx",
        "saved_model/saved_model.pb",
        "report.html",
    }
    version = workspace.folder / "version"
    workspace.models.fetch("cifar10", 1, version)

    images, labels = read_test_images(workspace)
    np.save(workspace.folder / "batch.npy", images)
    Image.fromarray(images[0]).resize((64, 48)).convert("RGBA").save(workspace.folder / "image.png")
    with workspace.serving("cifar10") as url:
        batch = workspace.json("predict", "cifar10", workspace.folder / "batch.npy", "--url", url)[
            "predictions"
        ]
        (prediction,) = workspace.json("predict", "cifar10", workspace.folder / "image.png", "--url", url)[
            "predictions"
        ]
    assert prediction["text"] in CLASSES
    assert sum(prediction["values"].values()) == pytest.approx(1, abs=1e-3)
    probabilities = [list(prediction["values"].values()) for prediction in batch]
    expected = predict_with_keras(version / "model.keras", images)
    np.testing.assert_allclose(probabilities, expected, atol=1e-4)
    assert np.mean(np.argmax(probabilities, axis=1) == labels) > 0.7


def read_test_images(workspace) -> tuple[np.ndarray, np.ndarray]:
    """Return 50 test images (50, 32, 32, 3) and their labels from the output of ingest."""
    raw = next((workspace.folder / ".modelyard" / "runs").glob("*/artifacts/*/ingest/raw"))
    shard = np.load(raw / "test-00000-of-00001.npy"), np.load(raw / "test-00000-of-00001.targets.npy")
    return shard[0][:50], shard[1][:50]


def predict_with_keras(path: Path, images: np.ndarray) -> np.ndarray:
    """Return the predictions of the saved .keras file, loaded without modelyard."""
    script = (
        "import keras, numpy, sys;"
        "model = keras.saving.load_model(sys.argv[1]);"
        "numpy.save(sys.argv[3], model.predict(numpy.load(sys.argv[2]), verbose=0))"
    )
    inputs, outputs = path.with_name("images.npy"), path.with_name("predictions.npy")
    np.save(inputs, images)
    subprocess.run([sys.executable, "-c", script, path, inputs, outputs], check=True, capture_output=True)
    return np.load(outputs)
