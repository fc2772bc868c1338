"""The errors and the requests of a store in a bucket."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest

from modelyard.components.errors import ConfigError, ConflictError, NotFoundError, StoreError
from modelyard.components.store import staging
from modelyard.components.store.bucket import Bucket
from modelyard.components.store.models import ModelStore
from modelyard.components.store.objects import Entry
from modelyard.components.store.storage import Connection, open_objects
from tests.http_server import Handler, serve
from tests.integration.conftest import BUCKET


@contextmanager
def start_server(*codes: int, message: str = "no") -> Iterator[tuple[str, list[str]]]:
    """Run a server that returns the codes in order and repeats the last; yield its URL and requests."""
    requests: list[str] = []
    remaining = list(codes)

    class Server(Handler):
        def handle_request(self) -> None:
            requests.append(f"{self.command} {self.path}")
            self.read_body()
            code = remaining.pop(0) if len(remaining) > 1 else remaining[0]
            self.respond(code, json.dumps({"error": {"code": code, "message": message}}).encode())

    with serve(Server) as url:
        yield url, requests


def operations(bucket: Bucket, path: Path) -> list[tuple[str, object]]:
    path.touch()
    return [
        ("read", lambda: bucket.read("m/a")),
        ("write", lambda: bucket.create("m/a", b"")),
        ("write", lambda: bucket.replace("m/a", b"", "1")),
        ("write", lambda: bucket.upload("m/a", path)),
        ("read", lambda: bucket.download("m/a", path)),
        ("list", lambda: bucket.keys("m/")),
        ("list", lambda: bucket.folders("")),
    ]


def check_errors(bucket: Bucket, path: Path, *phrases: str) -> None:
    for verb, operation in operations(bucket, path):
        with pytest.raises(StoreError) as error:
            operation()  # type: ignore[operator]
        assert not isinstance(error.value, NotFoundError | ConflictError)
        for phrase in (f"Cannot {verb} ", "gs://", *phrases):
            assert phrase in str(error.value)


def test_a_request_without_permission_is_an_error(tmp_path: Path) -> None:
    with start_server(403) as (url, _):
        bucket = Bucket("private", "models", Connection(url))
        check_errors(bucket, tmp_path / "f", "(403: no)", "roles/storage.objectUser on gs://private")


def test_refused_credentials_are_an_error(tmp_path: Path) -> None:
    with start_server(401) as (url, _):
        bucket = Bucket("private", "models", Connection(url))
        check_errors(bucket, tmp_path / "f", "credentials", "gcloud auth application-default login")


def test_a_missing_bucket_is_an_error(emulator: str, tmp_path: Path) -> None:
    bucket = Bucket("no-such-bucket", "models", Connection(emulator))
    check_errors(bucket, tmp_path / "f", "no bucket no-such-bucket", "gcloud storage buckets create")
    with pytest.raises(StoreError, match="no bucket"):
        ModelStore(bucket).champion("digits")


def test_an_unreachable_server_is_an_error(tmp_path: Path) -> None:
    with start_server(200) as (url, _):
        pass  # the server has ended
    bucket = Bucket("models", "", Connection(url, retry_seconds=0.3))
    check_errors(bucket, tmp_path / "f", url, "store.endpoint")


def test_an_emulator_ignores_proxies_certificates_and_passwords(
    emulator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("default login me password secret")
    variables = {"HTTP_PROXY": "http://127.0.0.1:1", "ALL_PROXY": "socks5://127.0.0.1:1"}
    variables |= {
        "SSL_CERT_FILE": "/missing",
        "REQUESTS_CA_BUNDLE": "/missing",
        "NETRC": str(tmp_path / "netrc"),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    check_errors(
        Bucket("no-such-bucket", "models", Connection(emulator)), tmp_path / "f", "no bucket no-such-bucket"
    )
    with pytest.raises(ConfigError, match="SSL_CERT_FILE is /missing"):
        Bucket("models", "", Connection(emulator.replace("http:", "https:")))
    with start_server(403) as (url, requests):
        monkeypatch.setenv("HTTP_PROXY", url)
        check_errors(Bucket("private", "", Connection("http://storage.invalid")), tmp_path / "f", "(403: no)")
        assert all("http://storage.invalid/" in request for request in requests)
    monkeypatch.delenv("HTTP_PROXY")
    with pytest.raises(ConfigError, match="PySocks"):
        Bucket("models", "", Connection("http://storage.invalid"))


def test_a_server_that_is_not_a_storage_is_an_error(tmp_path: Path) -> None:
    with start_server(400) as (url, _):
        check_errors(
            Bucket("models", "", Connection(url)),
            tmp_path / "f",
            f"{url} refuses the request (400: no)",
            "endpoint",
        )


@pytest.mark.parametrize(
    ("code", "message", "remedy"),
    [
        (400, "Bucket is a requester pays bucket but no user project provided.", "store.user_project"),
        (400, "User project specified in the request is invalid.", "Correct store.user_project"),
        (403, "Caller lacks serviceusage.services.use.", "roles/serviceusage.serviceUsageConsumer"),
        (403, "a@b.com does not have storage.objects.get access.", "roles/storage.objectUser"),
        (
            403,
            "Object 'm' is subject to bucket's retention policy until 2030.",
            "remove the retention policy",
        ),
        (403, "Object 'm' is under active Temporary hold and cannot be deleted.", "Release the hold"),
        (403, "Permission denied on Cloud KMS key.", "roles/cloudkms.cryptoKeyEncrypterDecrypter"),
        (403, "The billing account for the owning project is disabled.", "Enable billing"),
        (403, "Request is prohibited by organization's policy.", "administrators"),
    ],
)
def test_an_error_has_the_message_of_the_service(code: int, message: str, remedy: str, tmp_path) -> None:
    with start_server(code, message=message) as (url, _):
        bucket = Bucket("models", "", Connection(url))
        check_errors(bucket, tmp_path / "f", f"({code}: {message.rstrip('.')})", remedy)
        for operation in (lambda: bucket.delete(Entry("m/a", 1, 0.0, "1", "1")), lambda: bucket.touch("m/a")):
            with pytest.raises(StoreError, match=remedy):
                operation()


def test_each_request_has_the_user_project(tmp_path: Path) -> None:
    with start_server(403) as (url, requests):
        check_errors(Bucket("models", "", Connection(url, "payer")), tmp_path / "f", "403")
        assert requests
        assert [line for line in requests if "userProject=payer" not in line] == []


@pytest.mark.parametrize("settings", ["bucket"], indirect=True)
def test_folder_placeholders_are_ignored(settings, store, publish, emulator, tmp_path) -> None:
    url = settings.url
    store.promote("digits", publish("one"), reason="r", by="b")
    before = [store.history("digits"), store.stored_files("digits"), store.names()]
    folders = ("cats", "digits", "digits/history", "digits/versions", "digits/versions/000001", "digits/runs")
    with httpx.Client(base_url=f"{emulator}/upload/storage/v1/b/{BUCKET}") as client:
        for folder in (*folders, "digits/versions/000001/saved_model", "digits/versions/000002"):
            for suffix in ("", "/", "_$folder$"):
                name = quote(f"{url.rpartition('/')[2]}/{folder}{suffix}", safe="")
                client.post(f"/o?uploadType=media&name={name}", content=b"").raise_for_status()
    assert [store.history("digits"), store.stored_files("digits"), store.names()] == before
    assert open_objects(settings).entries("digits/runs/") == []
    staging.fetch(f"{url}/digits/versions/000001", tmp_path / "version", emulator)
    assert (tmp_path / "version/report.html").read_text() == "<p>fine</p>"
    assert publish("two") == 2
    assert store.remove("digits", 2)


def test_a_busy_service_is_retried() -> None:
    with start_server(503, 429, 403) as (url, requests):
        with pytest.raises(StoreError, match="403"):
            Bucket("models", "", Connection(url)).read("m/a")
        assert len(requests) == 3


def test_reading_the_champion_is_one_request() -> None:
    with start_server(403) as (url, requests):
        with pytest.raises(StoreError):
            ModelStore(Bucket("models", "prefix", Connection(url))).champion("digits")
        assert requests == ["GET /download/storage/v1/b/models/o/prefix%2Fdigits%2Fchampion.json?alt=media"]


def test_a_missing_champion_reads_the_pointer_and_lists_the_history() -> None:
    with start_server(404, 200, 200, 404, 200) as (url, requests):
        models = ModelStore(Bucket("models", "", Connection(url)))
        for _ in range(2):
            assert models.champion("digits") is None
        paths = [line.split()[1].partition("?")[0] for line in requests]
        read, listing = paths[0], "/storage/v1/b/models/o"
        assert "champion.json" in read
        assert paths[1:] == [listing, listing, read, listing], "the existence of the bucket is checked once"


def test_a_missing_object_without_permission_to_list_is_not_a_not_found_error() -> None:
    with start_server(404, 403) as (url, _), pytest.raises(StoreError, match=r"Cannot list .*403") as error:
        Bucket("models", "", Connection(url)).read("m/a")
    assert not isinstance(error.value, NotFoundError)


def test_a_write_with_a_lost_response_is_idempotent(emulator: str) -> None:
    bucket = Bucket(BUCKET, uuid4().hex, Connection(emulator))
    bucket.create("m/a", b"1")
    bucket.create("m/a", b"1")  # as in a retry
    _, generation = bucket.read("m/a")
    second = bucket.replace("m/a", b"2", generation)
    assert bucket.replace("m/a", b"2", generation) == second
    with pytest.raises(ConflictError):
        bucket.create("m/a", b"3")


def test_missing_credentials_are_an_error_before_the_first_request(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
    with pytest.raises(StoreError, match=r"gs://private.*missing\.json.*application-default login"):
        Bucket("private", "models")
