"""The location of a source from a URL or a path, and redacted URLs."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from modelyard.components.errors import ConfigError
from modelyard.components.source.checks import redact_url, safe_file_name
from modelyard.components.source.location import locate
from modelyard.components.source.settings import Source


@pytest.mark.parametrize(
    "url",
    ["ftp://host/x", "https://", "gs://", "gs:///x", "gs://-bucket/x", "https:///x", "http://[/x",
     "https://host:99999/x", "https://host name/x", "https://host..net/x"],
)  # fmt: skip
def test_an_unknown_url_is_refused_with_the_known_forms(url: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.source is .*gs://bucket/prefix, .*https://host/path"):
        locate(Source(kind="npz", source=url))


def test_a_file_url_is_a_local_path(tmp_path: Path) -> None:
    (tmp_path / "my set.npz").touch()
    path = locate(Source(kind="npz", source=f"file://{tmp_path}/my%20set.npz")).fetch(tmp_path / "scratch")
    assert path == tmp_path / "my set.npz"


def test_an_error_for_an_invalid_url_has_no_credentials() -> None:
    for url in ("ftp://host/x?secret", "https://me:sec/secret@host/x", "https://me:secret@[/x"):
        with pytest.raises(ConfigError) as error:
            locate(Source(kind="npz", source=url))
        assert "secret" not in str(error.value)
        assert error.value.__cause__ is None


@pytest.mark.parametrize(
    "url", ["https://me:hunter2@host/x", "https://hunter2@host/x", "https://host/x?X-Goog-Signature=hunter2"]
)
def test_a_url_with_credentials_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="contains a password or a signature"):
        Source(kind="npz", source=url)


def test_an_endpoint_without_a_scheme_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.endpoint is 'localhost:1'.*http://host:port"):
        locate(Source(kind="npz", source="gs://bucket/x", endpoint="localhost:1"))


@pytest.mark.parametrize(
    ("url", "redacted_url"),
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
def test_credentials_in_a_url_are_redacted(url: str, redacted_url: str) -> None:
    assert redact_url(url) == redacted_url


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
def test_file_names_are_safe(path: str, name: str) -> None:
    assert safe_file_name(path) == name
