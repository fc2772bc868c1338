"""An engineer's own pictures and own Keras model: pets.yaml and small.py as README has them."""

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
COLOURS = {"cat": (220, 120, 40), "frog": (40, 180, 60), "mouse": (128, 128, 128)}
KINDS = [("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("JPEG", "RGB"), ("JPEG", "CMYK")]
QUICK = ("training.epochs=5", "training.optimizer_settings={learning_rate: 0.01}")


@pytest.fixture(scope="module")
def pets(new_yard: Any) -> tuple[Any, Any]:
    """A yard with the pictures, the configuration and the code, in which it has run once, and its summary."""
    yard = new_yard()
    with zipfile.ZipFile(yard.folder / "pets.zip", "w") as archive:
        for name in COLOURS:
            for number in range(60):
                archive.writestr(
                    f"pets/{name}/{number}.{KINDS[number % 5][0].lower()}", picture(name, number)
                )
    config, code = readme()
    (yard.folder / "pets.yaml").write_text(config)
    (yard.folder / "networks").mkdir()
    (yard.folder / "networks" / "small.py").write_text(code)
    return yard, yard.json("run", "pets.yaml", settings=QUICK)


def readme() -> tuple[str, str]:
    """Return the configuration and the code, which README shows side by side."""
    found = re.search(
        r"```yaml\n# pets\.yaml( +)# networks/small\.py\n(.+?)```", README.read_text(), re.DOTALL
    )
    assert found
    column = len("# pets.yaml" + found[1])
    lines = found[2].splitlines(keepends=True)
    code = [line[column:].removeprefix("#   ") for line in lines if len(line) > column]
    return "\n".join(line[:column].rstrip() for line in lines), "".join(code)


def picture(name: str, number: int) -> bytes:
    """Return the bytes of a picture of this class, with noise, in one of the sizes, formats and modes."""
    random = np.random.default_rng([number, *name.encode()])
    form, mode = KINDS[number % 5]
    size = (40 + number, 90 - number, 1)
    if name == "mouse":
        mode = "LA" if mode == "RGBA" else "L"
    pixels = np.clip(COLOURS[name] + random.normal(0, 20, size), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, form)
    return file.getvalue()


def manifest(yard: Any) -> Any:
    return yard.json("models", "show", "pets")


def cached(summary: Any) -> list[str]:
    return [step["name"] for step in summary["steps"] if step["cached"]]


def test_what_readme_shows_runs_to_a_champion_that_knows_what_it_was_made_of(pets):
    yard, summary = pets
    assert (summary["state"], summary["decision"], summary["version"]) == ("succeeded", "promote", 1)
    assert summary["prediction"]["label"] in COLOURS
    made = manifest(yard)
    assert made["signature"] == {
        "shape": [64, 64, 3],
        "dtype": "uint8",
        "classes": list(COLOURS),
        "image": {"height": 64, "width": 64, "channels": 3, "resize": "stretch"},
    }
    assert made["model_code"] == tree_sha256(yard.folder / "networks")


def test_the_champion_knows_a_picture_that_it_has_never_seen(pets):
    yard, _ = pets
    for name in COLOURS:
        (yard.folder / "new.png").write_bytes(picture(name, number=75))
        (answer,) = yard.json("predict", "pets", "new.png")["predictions"]
        assert answer["label"] == name


def test_the_same_pictures_and_code_are_the_same_version_without_training(pets):
    yard, first = pets
    again = yard.json("run", "pets.yaml", settings=QUICK)
    assert cached(again) == ["ingest", "preprocess", "train", "evaluate"]
    assert (again["version"], again["fingerprint"]) == (first["version"], first["fingerprint"])


def test_an_edit_of_the_code_trains_anew_to_a_version_of_its_own(pets):
    yard, _ = pets
    before = manifest(yard)
    small = yard.folder / "networks" / "small.py"
    small.write_text(small.read_text().replace("relu", "tanh"))
    summary = yard.json("run", "pets.yaml", settings=(*QUICK, "gate=null"))
    assert cached(summary) == ["ingest", "preprocess"]
    assert summary["version"] == summary["champion"] == 2
    after = manifest(yard)
    assert after["model_code"] == tree_sha256(yard.folder / "networks") != before["model_code"]
    assert after["data"] == before["data"]
