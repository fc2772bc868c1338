import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_digits

from modelyard.components.errors import DataError
from modelyard.components.ingest.dataset import ingest
from modelyard.components.ingest.spec import IngestSpec
from modelyard.components.source.settings import Source

DIGITS = IngestSpec(source=Source(kind="digits"))


def test_digits_equal_those_of_scikit_learn(run_ingest) -> None:
    result = run_ingest("digits")
    expected = load_digits()
    np.testing.assert_array_equal(result.examples["all"][..., 0], expected.images)
    np.testing.assert_array_equal(result.labels["all"], expected.target)
    assert result.schema.names == tuple(map(str, expected.target_names))
    assert result.schema.image is None


def test_diabetes_data_equal_those_of_scikit_learn(run_ingest) -> None:
    result = run_ingest("diabetes", problem="regression")
    expected = load_diabetes(scaled=False)
    np.testing.assert_array_equal(result.examples["all"], expected.data.astype(np.float32))
    np.testing.assert_array_equal(result.labels["all"], expected.target.astype(np.float32))
    assert result.schema.names == ("progression",)


def test_only_the_packages_of_the_reader_are_imported(tmp_path) -> None:
    code = (
        "import sys; from modelyard.components.ingest.dataset import ingest; "
        "from modelyard.components.ingest.spec import IngestSpec; "
        f"ingest(IngestSpec.from_json({DIGITS.to_json()!r}), '', {str(tmp_path / 'raw')!r}); "
        "print({'sklearn', 'PIL', 'tensorflow', 'kfp', 'pyarrow'} & sys.modules.keys()); "
        "import modelyard.components.ingest.image_files; print('pyarrow' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-2:] == ["set()", "False"]  # the lines before are the log of the step


def test_a_failed_ingest_keeps_the_previous_artifact(tmp_path, png_image) -> None:
    raw = tmp_path / "raw"
    ingest(DIGITS, "", str(raw))
    before = {path.name: path.read_bytes() for path in raw.iterdir()}
    for number in range(50):
        folder = tmp_path / "source" / f"class {number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:02d}.png").write_bytes(png_image() if number < 49 else b"not an image")
    with pytest.raises(DataError, match=r"49\.png"):
        ingest(IngestSpec(source=Source(kind="images", source=str(tmp_path / "source"))), "", str(raw))
    assert {path.name: path.read_bytes() for path in raw.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw", "source"]


def test_an_error_has_the_url_of_the_source(tmp_path, run_ingest) -> None:
    (tmp_path / "s.npz").write_bytes(b"anything")
    with pytest.raises(DataError, match=rf"^file://{tmp_path}/s\.npz is not an \.npz"):
        run_ingest("npz", f"file://{tmp_path}/s.npz")


def test_a_wrong_sha256_is_refused_before_reading(tmp_path: Path, run_ingest) -> None:
    (tmp_path / "s.npz").write_bytes(b"anything")
    with pytest.raises(DataError, match=r"SHA-256"):
        run_ingest("npz", tmp_path / "s.npz", sha256="0" * 64)
