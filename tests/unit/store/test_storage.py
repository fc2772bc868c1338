import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from modelyard.components.errors import ConfigError, StoreError
from modelyard.components.store.folder import Folder
from modelyard.components.store.settings import Store
from modelyard.components.store.storage import open_objects, open_uri


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///srv/models", "/srv/models"),
        ("file://localhost/srv/my%20models", "/srv/my models"),
        ("/srv/models", "/srv/models"),
    ],
)
def test_a_folder_has_a_path_or_a_file_url(url: str, path: str) -> None:
    objects = open_objects(Store(url=url))
    assert isinstance(objects, Folder)
    assert objects.root == Path(path)


def test_a_relative_path_is_resolved_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    objects = open_objects(Store(url="some/models"))
    assert isinstance(objects, Folder)
    assert objects.root == tmp_path / "some/models"


@pytest.mark.parametrize("url", ["s3://bucket/models", "gs://", "gs:///models", "file://models", ""])
def test_an_unknown_url_is_refused_with_the_known_forms(url: str) -> None:
    with pytest.raises(ConfigError) as error:
        open_objects(Store(url=url))
    assert repr(url) in str(error.value)
    assert "gs://bucket/prefix" in str(error.value)


def test_an_endpoint_is_for_buckets_and_has_a_scheme() -> None:
    with pytest.raises(ConfigError, match=r"Remove store\.endpoint"):
        open_objects(Store(url="models", endpoint="http://localhost:1"))
    with pytest.raises(ConfigError, match=r"'localhost:1'.*http://host:port"):
        open_objects(Store(url="gs://bucket", endpoint="localhost:1"))


def test_a_folder_store_imports_no_cloud_client() -> None:
    code = """
import sys
from modelyard.components.store.models import open_store
from modelyard.components.store.settings import Store
assert open_store(Store(url="models")).champion("digits") is None
assert not [name for name in sys.modules if name.startswith(("google", "requests", "kfp"))]
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("setting", ["model.code", "environment.pipeline_root"])
def test_an_error_names_the_setting_that_the_url_comes_from(setting: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    objects, key = open_uri(f"{tmp_path}/file/code.zip", None, setting)
    for operation in (
        lambda: open_uri("s3://bucket/code.zip", None, setting),
        lambda: open_uri("code.zip", "http://localhost:1", setting),
        lambda: objects.read(f"{key}/x"),
    ):
        with pytest.raises((ConfigError, StoreError)) as error:
            operation()
        assert setting in str(error.value)
        assert "store.url" not in str(error.value)
