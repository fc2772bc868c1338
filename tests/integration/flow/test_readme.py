"""The example of the README: pets.yaml and small.py."""

import io
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from modelyard.components.artifacts import tree_sha256

README = Path(__file__).parents[3] / "README.md"
COLORS = {"cat": (220, 120, 40), "frog": (40, 180, 60), "mouse": (128, 128, 128)}
KINDS = [("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("JPEG", "RGB"), ("JPEG", "CMYK")]
QUICK = ("training.epochs=5", "training.optimizer_settings={learning_rate: 0.01}")


@pytest.fixture(scope="module")
def pets(new_workspace: Any) -> tuple[Any, Any]:
    """A workspace after a run with the configuration and code of the README, and the summary."""
    workspace = new_workspace()
    with zipfile.ZipFile(workspace.folder / "pets.zip", "w") as archive:
        for name in COLORS:
            for number in range(60):
                archive.writestr(
                    f"pets/{name}/{number}.{KINDS[number % 5][0].lower()}", image_bytes(name, number)
                )
    config, code = read_example()
    (workspace.folder / "pets.yaml").write_text(config)
    (workspace.folder / "networks").mkdir()
    (workspace.folder / "networks" / "small.py").write_text(code)
    return workspace, workspace.json("run", "pets.yaml", settings=QUICK)


def read_example() -> tuple[str, str]:
    """Return the configuration and the code of the README."""
    text = README.read_text()
    config = re.search(r"```yaml\n(# pets\.yaml\n.+?)```", text, re.DOTALL)
    code = re.search(r"```python\n(# networks/small\.py\n.+?)```", text, re.DOTALL)
    assert config
    assert code
    return config[1], code[1]


def image_bytes(name: str, number: int) -> bytes:
    """Return an image file of a class; size, format and mode depend on the number."""
    random = np.random.default_rng([number, *name.encode()])
    form, mode = KINDS[number % 5]
    size = (40 + number, 90 - number, 1)
    if name == "mouse":
        mode = "LA" if mode == "RGBA" else "L"
    pixels = np.clip(COLORS[name] + random.normal(0, 20, size), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, form)
    return file.getvalue()


def manifest(workspace: Any) -> Any:
    return workspace.json("models", "show", "pets")


def cached_steps(summary: Any) -> list[str]:
    return [step["name"] for step in summary["steps"] if step["cached"]]


def test_the_example_of_the_readme_promotes_a_champion(pets):
    workspace, summary = pets
    assert (summary["state"], summary["decision"], summary["version"]) == ("succeeded", "promote", 1)
    assert summary["prediction"]["text"] in COLORS
    details = manifest(workspace)
    (input_tensor,), (output_tensor,) = details["signature"]["inputs"], details["signature"]["outputs"]
    assert (input_tensor["shape"], input_tensor["dtype"], output_tensor["names"]) == (
        [64, 64, 3],
        "uint8",
        list(COLORS),
    )
    assert input_tensor["image"] == {"height": 64, "width": 64, "channels": 3, "resize": "stretch"}
    assert details["code_sha256"] == tree_sha256(workspace.folder / "networks")


def test_the_champion_classifies_a_new_image(pets):
    workspace, _ = pets
    (workspace.folder / "new.png").write_bytes(image_bytes("frog", number=75))
    (prediction,) = workspace.json("predict", "pets", "new.png")["predictions"]
    assert prediction["text"] == "frog"


def test_a_second_run_has_the_same_version_and_edited_code_trains_again(pets):
    workspace, first = pets
    second = workspace.json("run", "pets.yaml", settings=QUICK)
    assert cached_steps(second) == ["ingest", "preprocess", "train", "evaluate"]
    assert (second["version"], second["fingerprint"]) == (first["version"], first["fingerprint"])

    small = workspace.folder / "networks" / "small.py"
    small.write_text(small.read_text().replace("relu", "rely"))
    edited = workspace.json("run", "pets.yaml", settings=QUICK, code=4)
    assert cached_steps(edited) == ["ingest", "preprocess"]
    failure, explanation = edited["failure"], workspace.json("explain", edited["run"])
    assert (failure["kind"], failure["step"], failure["exit_code"]) == ("TrainError", "train", 4)
    assert "small.py" in failure["message"]
    assert (explanation["kind"], explanation["step"], explanation["state"]) == (
        "TrainError",
        "train",
        "failed",
    )
    assert failure["message"] in explanation["text"]
