"""Which source a URL or a path names, and what of a URL is shown."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from modelyard.components.errors import ConfigError
from modelyard.components.source.checks import redact_url, safe_file_name
from modelyard.components.source.location import locate
from modelyard.components.source.settings import Source


@pytest.mark.parametrize(
    "address",
    ["ftp://host/x", "https://", "gs://", "gs:///x", "gs://-bucket/x", "https:///x", "http://[/x",
     "https://host:99999/x", "https://host name/x", "https://host..net/x"],
)  # fmt: skip
def test_another_place_is_refused_with_those_that_work(address: str) -> None:
    with pytest.raises(
        ConfigError, match=r"data\.source is .*: use .*gs://bucket/prefix, .*https://host/path"
    ):
        locate(Source(kind="npz", source=address))


def test_a_file_may_be_named_by_its_url(tmp_path: Path) -> None:
    (tmp_path / "my set.npz").touch()
    found = locate(Source(kind="npz", source=f"file://{tmp_path}/my%20set.npz")).fetch(tmp_path / "scratch")
    assert found == tmp_path / "my set.npz"


def test_a_refused_address_keeps_its_secrets() -> None:
    for address in ("ftp://host/x?secret", "https://me:sec/secret@host/x", "https://me:secret@[/x"):
        with pytest.raises(ConfigError) as caught:
            locate(Source(kind="npz", source=address))
        assert "secret" not in str(caught.value)
        assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "address",
    ["https://me:hunter2@host/x", "https://hunter2@host/x", "https://host/x?X-Goog-Signature=hunter2"],
)
def test_a_secret_in_an_address_is_refused_before_it_gets_into_a_log(address: str) -> None:
    with pytest.raises(ValidationError, match="contains a password or a signature"):
        Source(kind="npz", source=address)


def test_an_emulator_has_a_scheme() -> None:
    with pytest.raises(ConfigError, match=r"data\.endpoint is 'localhost:1'.*http://host:port"):
        locate(Source(kind="npz", source="gs://bucket/x", endpoint="localhost:1"))


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("https://host/a/b.zip", "https://host/a/b.zip"),
        ("https://me:secret@host:8443/b.zip?token=secret#secret", "https://host:8443/b.zip"),
        ("https://secret@host?secret", "https://host"),
        ("https://me:se@cret@[::1]:80/b", "https://[::1]:80/b"),
        ("https://me:sec/ret@host/b", "https://…"),
        ("https://me:sec?ret@host/b", "https://…"),
        ("ftp://me:secret@host/b", "ftp://host/b"),
    ],
)
def test_what_gives_access_is_not_shown(address: str, public: str) -> None:
    assert redact_url(address) == public


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/cifar-10.tar.gz", "cifar-10.tar.gz"),
        ("/a/..", "download"),
        ("/a/.bashrc", "bashrc"),
        ("/a/my pets\\\0.zip", "my_pets__.zip"),
        ("/", "download"),
        (f"/{'x' * 300}.npz", f"{'x' * 96}.npz"),
    ],
)
def test_a_file_is_named_safely(path: str, name: str) -> None:
    assert safe_file_name(path) == name
