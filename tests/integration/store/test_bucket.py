"""What a bucket says when it cannot be used, and what its emulator honours."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import uuid4

import pytest

from modelyard.components.errors import ConflictError, NotFoundError, StoreError
from modelyard.components.store.bucket import Bucket
from modelyard.components.store.models import ModelStore
from modelyard.components.store.storage import Access

BUCKET = "models-for-tests"


@contextmanager
def answering(*codes: int) -> Iterator[tuple[str, list[str]]]:
    """A server that answers `codes` in turn, the last for ever; gives its URL and what was asked."""
    asked: list[str] = []
    left = list(codes)

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            asked.append(f"{self.command} {self.path}")
            self.rfile.read(int(self.headers.get("content-length", 0)))
            code = left.pop(0) if len(left) > 1 else left[0]
            body = b'{"error": {"code": %d, "message": "no"}}' % code
            self.send_response(code)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def uses(bucket: Bucket, path: Path) -> list[tuple[str, object]]:
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


def refused(bucket: Bucket, path: Path, *words: str) -> None:
    for verb, use in uses(bucket, path):
        with pytest.raises(StoreError) as caught:
            use()  # type: ignore[operator]
        assert not isinstance(caught.value, NotFoundError | ConflictError)
        for word in (f"Cannot {verb} ", "gs://", *words):
            assert word in str(caught.value)


def test_without_permission(tmp_path: Path) -> None:
    with answering(403) as (url, _):
        bucket = Bucket("private", "models", Access(url))
        refused(bucket, tmp_path / "f", "no permission (403)", "roles/storage.objectUser", "gs://private")


def test_without_credentials(tmp_path: Path) -> None:
    with answering(401) as (url, _):
        bucket = Bucket("private", "models", Access(url))
        refused(bucket, tmp_path / "f", "credentials", "gcloud auth application-default login")


def test_without_the_bucket(emulator: str, tmp_path: Path) -> None:
    bucket = Bucket("no-such-bucket", "models", Access(emulator))
    refused(bucket, tmp_path / "f", "no bucket no-such-bucket", "gcloud storage buckets create")
    with pytest.raises(StoreError, match="no bucket"):
        ModelStore(bucket).champion("digits")


def test_out_of_reach(tmp_path: Path) -> None:
    with answering(200) as (url, _):
        pass  # and gone
    bucket = Bucket("models", "", Access(url, patience=0.3))
    refused(bucket, tmp_path / "f", f"{url} did not answer", "store.endpoint")


def test_something_else_than_a_bucket(tmp_path: Path) -> None:
    with answering(400) as (url, _):
        refused(
            Bucket("models", "", Access(url)),
            tmp_path / "f",
            f"{url} did not answer as it should",
            "BadRequest",
        )


def test_a_busy_service_is_asked_again() -> None:
    with answering(503, 429, 403) as (url, asked):
        with pytest.raises(StoreError, match="403"):
            Bucket("models", "", Access(url)).read("m/a")
        assert len(asked) == 3


def test_the_champion_is_one_request() -> None:
    with answering(403) as (url, asked):
        with pytest.raises(StoreError):
            ModelStore(Bucket("models", "there", Access(url))).champion("digits")
        assert asked == ["GET /download/storage/v1/b/models/o/there%2Fdigits%2Fchampion.json?alt=media"]


def test_a_missing_champion_is_one_request_once_the_bucket_was_seen() -> None:
    with answering(404, 200, 404) as (url, asked):
        models = ModelStore(Bucket("models", "", Access(url)))
        for _ in range(3):
            assert models.champion("digits") is None
        assert ["/download/" in line for line in asked] == [True, False, True, True]


def test_a_write_whose_answer_got_lost_counts_as_written(emulator: str) -> None:
    bucket = Bucket(BUCKET, uuid4().hex, Access(emulator))
    bucket.create("m/a", b"1")
    bucket.create("m/a", b"1")  # as a retry would
    _, generation = bucket.read("m/a")
    second = bucket.replace("m/a", b"2", generation)
    assert bucket.replace("m/a", b"2", generation) == second
    with pytest.raises(ConflictError):
        bucket.create("m/a", b"3")


def test_credentials_that_are_missing_are_said_before_anything_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "gone.json"))
    with pytest.raises(StoreError, match=r"gs://private.*gone\.json.*application-default login"):
        Bucket("private", "models")
