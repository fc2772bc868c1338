"""Objects in a bucket of Google Cloud Storage, below a prefix.

`create` and `replace` carry the generation that the object must have as a precondition. Requests are
bounded in time, and tried again while the service is busy or out of reach. A request whose answer got lost
meets its own write when it is tried again: an object that already holds the very bytes counts as written.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from modelyard.components.errors import ConflictError, NotFoundError, StoreError, UnreachableError
from modelyard.components.store.client import no_credentials, open_client, said
from modelyard.components.store.objects import Entry, checked

CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 60.0
ABSENT = "0"
PART_BYTES = 8 * 2**20
LISTED = "items(name,size,generation,metageneration,updated,customTime),nextPageToken"


class Bucket:
    """Objects in one bucket.

    Args:
        bucket: the bucket's name; it exists.
        prefix: what all keys start with, without `/` at the ends; may be empty.
        endpoint: an emulator's address, used without credentials.
        patience: seconds for which a request is tried again.
    """

    def __init__(
        self, bucket: str, prefix: str = "", endpoint: str | None = None, patience: float = 30.0
    ) -> None:
        from google.cloud.storage.retry import DEFAULT_RETRY

        self.url = f"gs://{bucket}/{prefix}".rstrip("/")
        self._name = bucket
        self._endpoint = endpoint
        self._prefix = f"{prefix}/" if prefix else ""
        self._bounds: dict[str, Any] = {
            "timeout": (CONNECT_TIMEOUT, READ_TIMEOUT),
            "retry": DEFAULT_RETRY.with_timeout(patience),
        }
        self._seen = False
        with self._plainly("open", ""):
            self._bucket = open_client(endpoint).bucket(bucket)

    def read(self, key: str) -> tuple[bytes, str]:
        """See Objects."""
        blob = self._blob(key)
        with self._plainly("read", key):
            data = blob.download_as_bytes(**self._bounds)
        return data, str(blob.generation)

    def create(self, key: str, data: bytes) -> None:
        """See Objects."""
        self._write(key, data, ABSENT)

    def replace(self, key: str, data: bytes, generation: str) -> str:
        """See Objects."""
        return self._write(key, data, generation)

    def upload(self, key: str, path: Path) -> None:
        """See Objects."""
        with self._plainly("write", key):
            self._blob(key).upload_from_filename(str(path), **self._bounds)

    def add(self, key: str, file: IO[bytes], size: int) -> None:
        """See Objects."""
        from google.api_core.exceptions import PreconditionFailed

        blob = self._blob(key)
        blob.chunk_size = PART_BYTES  # which is what is held in memory
        with self._plainly("write", key):
            try:
                blob.upload_from_file(file, size=size, if_generation_match=int(ABSENT), **self._bounds)
            except PreconditionFailed as error:
                raise ConflictError(f"{self.url}/{key} exists already.") from error

    def touch(self, key: str) -> bool:
        """See Objects."""
        from google.api_core.exceptions import NotFound

        blob = self._blob(key)
        blob.custom_time = datetime.now(UTC)  # a new metageneration, too
        with self._plainly("write", key):
            try:
                blob.patch(**self._bounds)
            except NotFound:
                if not self._bucket_exists():
                    raise
                return False
        return True

    def delete(self, seen: Entry) -> bool:
        """See Objects."""
        from google.api_core.exceptions import NotFound, PreconditionFailed

        names = ("if_generation_match", "if_metageneration_match")
        as_seen = dict(zip(names, map(int, seen.generation.split(".")), strict=True))
        with self._plainly("delete", seen.key):
            try:
                self._blob(seen.key).delete(**as_seen, **self._bounds)
            except NotFound:
                return True
            except PreconditionFailed:
                return False
        return True

    def download(self, key: str, path: Path) -> None:
        """See Objects."""
        with self._plainly("read", key):
            self._blob(key).download_to_filename(str(path), **self._bounds)

    def exists(self, key: str) -> bool:
        """See Objects."""
        with self._plainly("read", key):
            return bool(self._blob(key).exists(**self._bounds))

    def keys(self, prefix: str) -> list[str]:
        """See Objects."""
        with self._plainly("list", prefix):
            blobs = self._bucket.list_blobs(prefix=self._prefix + prefix, **self._bounds)
            return sorted(str(blob.name).removeprefix(self._prefix) for blob in blobs)

    def entries(self, prefix: str) -> list[Entry]:
        """See Objects."""
        with self._plainly("list", prefix):
            blobs = self._bucket.list_blobs(prefix=self._prefix + prefix, fields=LISTED, **self._bounds)
            return sorted((self._entry(blob) for blob in blobs), key=lambda entry: entry.key)

    def folders(self, prefix: str) -> list[str]:
        """See Objects."""
        with self._plainly("list", prefix):
            pages = self._bucket.list_blobs(prefix=self._prefix + prefix, delimiter="/", **self._bounds)
            names = {name for page in pages.pages for name in page.prefixes}
        return sorted(name.removeprefix(self._prefix + prefix).rstrip("/") for name in names)

    def _entry(self, blob: Any) -> Entry:
        changed = max(time for time in (blob.updated, blob.custom_time) if time)
        generation = f"{blob.generation}.{blob.metageneration}"
        return Entry(blob.name.removeprefix(self._prefix), blob.size, changed.timestamp(), generation)

    def _blob(self, key: str) -> Any:
        return self._bucket.blob(self._prefix + checked(key))

    def _write(self, key: str, data: bytes, generation: str) -> str:
        from google.api_core.exceptions import PreconditionFailed

        blob = self._blob(key)
        with self._plainly("write", key):
            try:
                blob.upload_from_string(
                    data, "application/json", if_generation_match=int(generation), **self._bounds
                )
            except PreconditionFailed as error:
                found, current = self._found(key)
                if found == data:
                    return current
                raise ConflictError(f"{self.url}/{key} was written by somebody else meanwhile.") from error
        return str(blob.generation)

    def _found(self, key: str) -> tuple[bytes | None, str]:
        try:
            return self.read(key)
        except NotFoundError:
            return None, ABSENT

    @contextmanager
    def _plainly(self, verb: str, key: str) -> Iterator[None]:
        """Turn what the client library raises into errors of the store."""
        from google.api_core import exceptions
        from google.auth.exceptions import GoogleAuthError
        from google.cloud.storage.exceptions import DataCorruption
        from requests import RequestException  # type: ignore[import-untyped]

        try:
            yield
        except exceptions.NotFound as error:
            if verb == "read" and self._bucket_exists():
                raise NotFoundError(f"The model store {self.url} has no {key}.") from error
            raise self._unusable(verb, key, self._missing()) from error
        except (exceptions.Forbidden, exceptions.Unauthorized) as error:
            raise self._unusable(verb, key, self._forbidden(int(error.code or 403))) from error
        except GoogleAuthError as error:
            raise self._unusable(verb, key, no_credentials(error)) from error
        except (exceptions.GoogleAPIError, RequestException, ConnectionError, DataCorruption) as error:
            raise UnreachableError(str(self._unusable(verb, key, self._unreachable(error)))) from error
        except OSError as error:
            raise self._unusable(verb, key, f"{error}. Make room for the file on this machine.") from error

    def _bucket_exists(self) -> bool:
        """Say whether the bucket is there; listing needs no more permission than the objects do."""
        from google.api_core.exceptions import NotFound

        if not self._seen:
            try:
                next(iter(self._bucket.list_blobs(max_results=1, **self._bounds)), None)
            except NotFound:
                return False
            self._seen = True
        return True

    def _unusable(self, verb: str, key: str, why: str) -> StoreError:
        return StoreError(f"Cannot {verb} {key or 'anything'} in the model store {self.url}: {why}")

    def _missing(self) -> str:
        return (
            f"there is no bucket {self._name} (404). Create it with `gcloud storage buckets create "
            f"gs://{self._name}`, or correct store.url."
        )

    def _forbidden(self, code: int) -> str:
        return (
            f"the account has no permission ({code}). Grant it the role roles/storage.objectUser on "
            f"gs://{self._name}, or correct store.url."
        )

    def _unreachable(self, error: Exception) -> str:
        where = self._endpoint or "https://storage.googleapis.com"
        return (
            f"{where} did not answer as it should ({said(error)}). Check the network and "
            "store.endpoint, then retry."
        )
