"""The package as users install it: from a wheel that was built from the sdist."""

import json
import os
import subprocess
import sys
import tarfile
import venv
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
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a wheel that was built from the sdist."""
    folder = tmp_path_factory.mktemp("package")
    with tarfile.open(build(ROOT, "sdist", folder / "sdist")) as sdist:
        sdist.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    return build(source, "wheel", folder / "wheel")


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files of the wheel."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def working_directory(tmp_path: Path) -> Path:
    """Return a folder with packages `components` and `pipelines` that cannot be imported."""
    for part in ("components", "pipelines"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "__init__.py").write_text("raise RuntimeError('the wrong package')")
    return tmp_path


def test_a_wheel_built_from_the_sdist_has_every_file(installed):
    for part in ("components", "pipelines"):
        files = {path.relative_to(ROOT) for path in (ROOT / part).rglob("*") if path.is_file()}
        source_files = {Path("modelyard") / path for path in files if "__pycache__" not in path.parts}
        assert source_files <= {path.relative_to(installed) for path in installed.rglob("*")}


def test_folders_with_the_same_names_in_the_working_directory_are_not_imported(installed, working_directory):
    script = (
        "import modelyard; assert set(vars(modelyard)) & {'components', 'pipelines'} == set(); "
        "from modelyard.pipelines.cli import invoke; import modelyard.pipelines.train_to_serve; "
        "print(modelyard.__file__); invoke(['config', 'show'])"
    )
    command = [sys.executable, "-c", script]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    out = subprocess.run(
        command, cwd=working_directory, env=environment, check=True, capture_output=True, text=True
    ).stdout
    assert out.startswith(str(installed))
    assert "name: digits" in out


@pytest.mark.soak
def test_the_wheel_runs_the_digits_in_an_empty_environment(wheel, working_directory):
    """Pip installs the dependencies that the wheel declares."""
    venv.create(working_directory / "venv", with_pip=True)
    binaries = working_directory / "venv/bin"
    subprocess.run([binaries / "python", "-m", "pip", "install", "-q", wheel], check=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment |= {"PATH": f"{binaries}:{os.environ['PATH']}", "HOME": str(working_directory)}
    command = ["modelyard", "run", "--output", "json"]
    result = subprocess.run(command, cwd=working_directory, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["decision"] == "promote"
