"""A source in a bucket, on the fake-gcs-server and on a server that returns errors."""

import gzip
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest

from modelyard.components.errors import DataError
from modelyard.components.source.location import Location, locate
from modelyard.components.source.objects import ObjectLocation
from modelyard.components.source.settings import Source
from modelyard.components.store.bucket import Bucket, GoogleCloudStorage
from tests.integration.conftest import BUCKET

IMAGES = {"cat/1.png": b"cat 1", "cat/2.png": b"cat 2", "dog/deep/1.png": b"dog 1", "empty.txt": b""}


@pytest.fixture(scope="module")
def upload(emulator: str) -> Iterator[Callable[..., None]]:
    with httpx.Client(base_url=f"{emulator}/upload/storage/v1/b/{BUCKET}") as client:

        def upload_object(name: str, data: bytes, encoding: str = "") -> None:
            query = f"uploadType=media&name={quote(name, safe='')}&contentEncoding={encoding}"
            client.post(f"/o?{query}", content=data).raise_for_status()

        yield upload_object


@pytest.fixture
def prefix() -> str:
    return uuid4().hex


@pytest.fixture
def image_prefix(upload: Any, prefix: str) -> str:
    """A prefix with class folders and folder placeholders, as consoles and Hadoop create them."""
    for name, data in IMAGES.items():
        upload(f"{prefix}/images/{name}", data)
    for folder in ("", "/", "_$folder$", "/cat", "/cat/", "/cat_$folder$", "/dog/deep", "/empty/"):
        upload(f"{prefix}/images{folder}", b"")
    upload(f"{prefix}/images-other/1.png", b"other")
    return f"{prefix}/images"


@pytest.fixture
def location(emulator: str) -> Callable[..., Location]:
    def locate_object(name: str, **keys: object) -> Location:
        url = f"gs://{BUCKET}/{name}"
        return locate(Source.model_validate({"kind": "npz", "source": url, "endpoint": emulator, **keys}))

    return locate_object


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def check_error(operation: Callable[[], object], match: str) -> None:
    with pytest.raises(DataError, match=match) as error:
        operation()
    assert "\n" not in str(error.value)


def test_an_object_is_identified_and_downloaded(
    upload: Any, location: Any, prefix: str, tmp_path: Path
) -> None:
    upload(f"{prefix}/set.npz", b"one")
    location = location(f"{prefix}/set.npz")
    first = location.identity()
    assert location.identity() == first
    path = location.fetch(tmp_path / "scratch")
    assert (path, path.read_bytes()) == (tmp_path / "scratch/set.npz", b"one")
    upload(f"{prefix}/set.npz", b"two")
    assert location.identity() != first
    assert location.fetch(tmp_path / "scratch").read_bytes() == b"two"
    assert files(tmp_path) == {"scratch/set.npz": b"two"}


def test_an_object_with_content_encoding_is_not_decoded(
    upload: Any, location: Any, prefix: str, tmp_path: Path
) -> None:
    packed = gzip.compress(bytes(2**20))
    upload(f"{prefix}/set.tar.gz", packed, "gzip")
    sha256 = hashlib.sha256(packed).hexdigest()
    path = location(f"{prefix}/set.tar.gz", sha256=sha256, max_bytes=2**15).fetch(tmp_path)
    assert path.read_bytes() == packed


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_prefix_is_a_folder(location: Any, image_prefix: str, tmp_path: Path, slash: str) -> None:
    folder = location(image_prefix + slash).fetch(tmp_path)
    assert folder == tmp_path / "images"
    assert files(folder) == IMAGES


@pytest.mark.parametrize("name", ["cat/1.png", "cat/3.png"])
def test_the_identity_of_a_prefix_depends_only_on_its_objects(
    upload: Any, location: Any, image_prefix: str, name: str
) -> None:
    first = location(image_prefix).identity()
    upload(f"{image_prefix}-other/2.png", b"other")
    assert location(image_prefix).identity() == location(f"{image_prefix}/").identity() == first
    upload(f"{image_prefix}/dog/", b"")
    assert location(image_prefix).identity() == first
    upload(f"{image_prefix}/{name}", b"cat 1")
    assert location(image_prefix).identity() != first


def test_a_bucket_is_a_folder(emulator: str, tmp_path: Path) -> None:
    httpx.post(f"{emulator}/storage/v1/b", json={"name": "pets"}).raise_for_status()
    source = Source(kind="images", source="gs://pets", endpoint=emulator)
    check_error(locate(source).identity, "no such object or prefix")
    url = f"{emulator}/upload/storage/v1/b/pets/o?uploadType=media&name=cat%2F1.png"
    httpx.post(url, content=b"cat").raise_for_status()
    assert locate(source).identity()
    assert files(locate(source).fetch(tmp_path)) == {"cat/1.png": b"cat"}


@pytest.mark.parametrize(
    "name", ["../../outside", "..", "a/../../b", "/etc/passwd", "a//b", "./a", "a\0b", "n" * 900]
)
def test_an_object_with_a_path_outside_the_folder_is_refused(
    upload: Any, location: Any, image_prefix: str, tmp_path: Path, name: str
) -> None:
    upload(f"{image_prefix}/{name}", b"evil")
    check_error(
        lambda: location(image_prefix).fetch(tmp_path / "a/scratch"),
        r"cannot be saved as a file.*Rename the object",
    )
    assert not files(tmp_path)


def test_names_with_special_characters_are_downloaded(
    upload: Any, location: Any, prefix: str, tmp_path: Path
) -> None:
    names = ["a#b", "a?b=c", "a%2Fb", "a b+c", "\u00e9", "e\u0301", "A", "a", "a\\b", "\u202ea", "a\nb"]
    names.append("/".join(["n" * 190] * 5))  # at most 1,024 bytes with the prefix
    for name in names:
        upload(f"{prefix}/{name}", name.encode())
    assert files(location(prefix).fetch(tmp_path / "all")) == {name: name.encode() for name in names}
    for name in names:
        path = location(f"{prefix}/{name}").fetch(tmp_path / "object")
        assert (path.parent, path.read_bytes()) == (tmp_path / "object", name.encode())


def test_an_object_with_the_name_of_a_folder_is_refused(
    upload: Any, location: Any, image_prefix: str, tmp_path: Path
) -> None:
    upload(f"{image_prefix}/cat", b"not a folder")
    check_error(lambda: location(image_prefix).fetch(tmp_path), r"images.*cat.* cannot be saved as a file")
    assert not files(tmp_path)


def test_sha256_is_the_identity_and_is_verified_after_the_download(
    upload: Any, location: Any, prefix: str, tmp_path: Path
) -> None:
    upload(f"{prefix}/set.npz", b"one")
    correct, wrong = hashlib.sha256(b"one").hexdigest(), "0" * 64
    assert location(f"{prefix}/set.npz", sha256=correct).fetch(tmp_path / "correct").read_bytes() == b"one"
    assert location(f"{prefix}/set.npz", sha256=wrong).identity() == wrong
    changed = location(f"{prefix}/set.npz", sha256=wrong)
    check_error(
        lambda: changed.fetch(tmp_path / "wrong"), f"set.npz is {correct}, but data.sha256 is {wrong}"
    )
    assert not files(tmp_path / "wrong")


def test_an_object_replaced_during_the_download_is_refused(
    upload: Any, location: Any, prefix: str, tmp_path, monkeypatch
):
    upload(f"{prefix}/set.npz", b"one")
    find = Bucket.find

    def find_and_replace(bucket: Bucket, key: str) -> Any:
        entry = find(bucket, key)
        upload(f"{prefix}/set.npz", b"two")
        return entry

    monkeypatch.setattr(Bucket, "find", find_and_replace)
    check_error(
        lambda: location(f"{prefix}/set.npz").fetch(tmp_path), "deleted during the download. Run again"
    )
    assert not files(tmp_path)


def test_sha256_is_refused_for_a_prefix(location: Any, image_prefix: str, tmp_path: Path) -> None:
    check_error(
        lambda: location(image_prefix, sha256="0" * 64).fetch(tmp_path), r"has many\. Remove data\.sha256"
    )


def test_more_bytes_than_allowed_are_refused(location: Any, image_prefix: str, tmp_path: Path) -> None:
    assert files(location(image_prefix, max_bytes=15).fetch(tmp_path / "correct")) == IMAGES
    for name in (image_prefix, f"{image_prefix}/cat/1.png"):
        check_error(
            lambda name=name: location(name, max_bytes=4).fetch(tmp_path / "wrong"), r"max_bytes allows 4\."
        )
    assert not (tmp_path / "wrong").exists()


def test_a_missing_object_is_an_error(emulator: str, location: Any, prefix: str, tmp_path: Path) -> None:
    for name in (f"{prefix}/missing.npz", f"{prefix}/"):
        for operation in (location(name).identity, lambda name=name: location(name).fetch(tmp_path)):
            check_error(operation, rf"gs://{BUCKET}/{name} .*no such object or prefix.*Correct data\.source")
    missing = locate(Source(kind="npz", source="gs://no-such-bucket/set.npz", endpoint=emulator))
    check_error(missing.identity, "there is no bucket no-such-bucket")


@pytest.mark.parametrize("code", [401, 403])
def test_a_request_without_permission_is_an_error(web_server: Any, tmp_path: Path, code: int) -> None:
    web_server.handle = lambda request: request.respond(code, b'{"error": {"message": "no"}}')
    location = locate(Source(kind="npz", source="gs://private/set.npz", endpoint=web_server.url))
    for operation in (location.identity, lambda: location.fetch(tmp_path)):
        check_error(
            operation, r"credentials|\(403: no\)\. Grant .* roles/storage\.objectViewer on gs://private"
        )


def test_the_user_project_pays_for_requests(web_server: Any) -> None:
    def handle(request: Any) -> None:
        if "userProject=payer" in request.path:
            metadata = {"name": "set.npz", "size": "1", "generation": "7", "updated": "2026-01-01T00:00:00Z"}
            request.respond(200, json.dumps(metadata).encode())
        else:
            message = "Bucket is a requester pays bucket but no user project provided."
            request.respond(400, json.dumps({"error": {"code": 400, "message": message}}).encode())

    web_server.handle = handle
    source = Source(kind="npz", source="gs://data/set.npz", endpoint=web_server.url)
    check_error(locate(source).identity, "400: Bucket is a requester pays .* data.user_project")
    assert locate(source.model_copy(update={"user_project": "payer"})).identity() == "7"


def test_a_busy_or_stalled_service_is_an_error(web_server: Any) -> None:
    def identity(timeout: float) -> str:
        url = "gs://data/set.npz"
        source = Source(kind="npz", source=url, endpoint=web_server.url, timeout=timeout)
        return ObjectLocation(GoogleCloudStorage(), url, source, retry_seconds=0.3).identity()

    web_server.handle = lambda request: request.respond(503)
    check_error(lambda: identity(60.0), f"{web_server.url} is busy .503.*Retry later")
    web_server.handle = lambda request: request.stall()
    check_error(lambda: identity(0.2), web_server.url)


def test_missing_credentials_are_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
    location = locate(Source(kind="npz", source="gs://private/set.npz"))
    check_error(location.identity, r"gs://private .*missing\.json.*application-default login")


def test_an_object_with_a_sha256_is_identified_without_the_client(tmp_path: Path) -> None:
    code = f"""
import sys
from modelyard.components.source.location import locate
from modelyard.components.source.settings import Source
locate(Source(kind="npz", source="gs://data/set.npz", sha256="{"0" * 64}")).identity()
assert "google" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
