"""Invalid input fails a run with one paragraph and an exit code, and changes nothing.

test_failures.py tests failures of steps; the unit tests test each kind of invalid input.
"""

import io
import re
import zipfile
from pathlib import Path

from PIL import Image


def test_a_misspelled_key_fails_the_run_and_changes_nothing(champion, error_text):
    before = champion.state()
    result = champion.modelyard("run", settings=("training.epoch=3",))
    assert result.returncode == 2, result.stderr
    assert "training.epochs" in error_text(result.stderr)
    assert champion.state() == before
    assert champion.temporary_files() == []


def test_invalid_data_fails_the_run_and_shows_the_path_of_the_log(champion, tmp_path, error_text):
    image = io.BytesIO()
    Image.new("RGB", (8, 8)).save(image, "PNG")
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        archive.writestr("cat/1.png", image.getvalue())
        archive.writestr("dog/readme.png", b"not an image")
    before = champion.state()
    result = champion.modelyard("run", settings=("data.kind=images", f"data.source={tmp_path}/pets.zip"))
    assert result.returncode == 3, result.stderr
    assert "dog/readme.png" in error_text(result.stderr)
    log = re.search(r"^log of ingest: (.+)$", result.stderr, re.MULTILINE)
    assert log, result.stderr
    assert "dog/readme.png" in Path(log[1]).read_text()
    assert "last lines" not in result.stderr
    lines = [line.split()[:2] for line in result.stderr.splitlines()]
    assert lines.index(["deploy", "skipped"]) < lines.index(["explain", "started"])
    assert champion.state() == before
    assert champion.temporary_files() == []
