"""A source in a storage plugin."""

import hashlib
from pathlib import Path

import pytest

from modelyard.components.errors import ConfigError, DataError
from modelyard.components.source.location import locate
from modelyard.components.source.settings import Source
from modelyard.components.store.settings import Store
from modelyard.components.store.storage import find_storage, open_objects


def source(url: str, **keys: object) -> Source:
    return Source.model_validate({"kind": "images", "source": url, **keys})


@pytest.mark.usefixtures("shelf_storage")
def test_an_object_and_a_prefix_are_downloaded(tmp_path: Path) -> None:
    objects = open_objects(Store(url="shelf://data"))
    for key in ("pets.zip", "pets/cat/1.png", "pets/dog/1.png"):
        objects.create(key, key.encode())
    sha256 = hashlib.sha256(b"pets.zip").hexdigest()
    path = locate(source("shelf://data/pets.zip", sha256=sha256)).fetch(tmp_path / "object")
    assert path.read_bytes() == b"pets.zip"
    pets = locate(source("shelf://data/pets"))
    before = pets.identity()
    assert (pets.fetch(tmp_path / "prefix") / "dog/1.png").read_bytes() == b"pets/dog/1.png"
    objects.replace("pets/dog/1.png", b"another", objects.read("pets/dog/1.png")[1])
    assert pets.identity() != before
    with pytest.raises(DataError, match=r"shelf://data/missing .*data\.source"):
        locate(source("shelf://data/missing")).identity()


@pytest.mark.usefixtures("shelf_storage")
def test_an_invalid_url_or_storage_names_the_key_and_the_valid_forms() -> None:
    with pytest.raises(ConfigError, match=r"store\.url is 'shelf:///x', .*shelf://name/prefix"):
        open_objects(Store(url="shelf:///x"))
    with pytest.raises(ConfigError, match=r"broken://.*shelf:nothing"):
        find_storage("broken://x", "store.url")
    with pytest.raises(ConfigError, match=r"Remove store\.endpoint"):
        open_objects(Store(url="shelf://models", endpoint="http://localhost:1"))
    with pytest.raises(ConfigError, match=r"Remove store\.user_project"):
        open_objects(Store(url="shelf://models", user_project="payer"))
    with pytest.raises(ValueError, match=r"data\.user_project is for gs://: remove it"):
        source("shelf://models", user_project="payer")


def test_a_storage_that_is_not_installed_is_unknown() -> None:
    with pytest.raises(ConfigError, match=r"data\.source is shelf://data/x.*gs://bucket/prefix"):
        locate(source("shelf://data/x"))
