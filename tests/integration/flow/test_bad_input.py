"""Bad input of a run: one paragraph with the place and the remedy, its exit code, and nothing is changed.

test_failures.py has what fails in a step; what is bad in which way is tested where it is found.
"""

import io
import re
import zipfile
from pathlib import Path

from PIL import Image


def test_a_typo_in_a_key_ends_the_run_with_a_paragraph_and_changes_nothing(champion, error_text):
    before = champion.state()
    done = champion.modelyard("run", settings=("training.epoch=3",))
    assert done.returncode == 2, done.stderr
    assert "training.epochs" in error_text(done.stderr)
    assert champion.state() == before
    assert champion.leftovers() == []


def test_bad_data_end_the_run_with_the_end_of_the_steps_log_and_the_place_of_the_whole(
    champion, tmp_path, error_text
):
    image = io.BytesIO()
    Image.new("RGB", (8, 8)).save(image, "PNG")
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        archive.writestr("cat/1.png", image.getvalue())
        archive.writestr("dog/readme.png", b"not an image")
    before = champion.state()
    done = champion.modelyard("run", settings=("data.kind=images", f"data.source={tmp_path}/pets.zip"))
    assert done.returncode == 3, done.stderr
    assert "dog/readme.png" in error_text(done.stderr)
    shown = re.search(r"^last lines of ingest:\n((?:  .+\n)+)whole log: (.+)$", done.stderr, re.MULTILINE)
    assert shown, done.stderr
    log = Path(shown[2]).read_text()
    assert all(line.strip() in log for line in shown[1].splitlines())
    assert "readme.png" in shown[1]
    assert champion.state() == before
    assert champion.leftovers() == []
