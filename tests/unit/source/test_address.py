import pytest

from modelyard.components.source.address import file_name, shown


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
    assert shown(address) == public


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
    assert file_name(path) == name
