"""The package as users install it: from a wheel that was built from the sdist."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def build(source: Path, target: str, folder: Path) -> Path:
    """Build the sdist or wheel of `source` into `folder` and return its file."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (file,) = folder.iterdir()
    return file


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files of a wheel that was built from the sdist."""
    folder = tmp_path_factory.mktemp("package")
    with tarfile.open(build(ROOT, "sdist", folder / "sdist")) as sdist:
        sdist.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    with zipfile.ZipFile(build(source, "wheel", folder / "wheel")) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


def test_a_wheel_built_from_the_sdist_has_every_file(installed):
    for part in ("components", "pipelines"):
        files = {path.relative_to(ROOT) for path in (ROOT / part).rglob("*") if path.is_file()}
        source_files = {Path("modelyard") / path for path in files if "__pycache__" not in path.parts}
        assert source_files <= {path.relative_to(installed) for path in installed.rglob("*")}


def test_folders_with_the_same_names_in_the_working_directory_are_not_imported(installed, tmp_path):
    for part in ("components", "pipelines"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "__init__.py").write_text("raise RuntimeError('the wrong package')")
    script = (
        "import modelyard; assert set(vars(modelyard)) & {'components', 'pipelines'} == set(); "
        "from modelyard.pipelines.cli import invoke; import modelyard.pipelines.train_to_serve; "
        "print(modelyard.__file__); invoke(['config', 'show'])"
    )
    command = [sys.executable, "-c", script]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    out = subprocess.run(
        command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    ).stdout
    assert out.startswith(str(installed))
    assert "name: digits" in out
