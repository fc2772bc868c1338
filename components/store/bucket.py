"""Objects in a bucket of Google Cloud Storage, below a prefix.

`create` and `replace` send the generation that the object must have, as a precondition. Requests have a
timeout and are retried while the service is busy or unreachable. A retried write whose first response was
lost finds its own object: an object with the same bytes counts as written.
"""

import os
import re
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from textwrap import shorten
from typing import IO, Any

from modelyard.components import machine
from modelyard.components.errors import ConflictError, NotFoundError, StoreError, UnreachableError, describe
from modelyard.components.store.objects import Entry, Objects, check_key
from modelyard.components.store.storage import Connection, Setting, Storage

CONNECT_TIMEOUT = 5.0
STORAGE = "https://storage.googleapis.com"
MAX_MESSAGE = 400  # characters of an error message of Cloud Storage
ABSENT = "0"  # the generation of an object that does not exist
PART_BYTES = 8 * 2**20  # of an upload, held in memory
LIST_FIELDS = "items(name,size,generation,metageneration,updated,customTime),nextPageToken"
READ_ONLY: tuple[Setting, ...] = ("data.source", "model.code")
BUSY = (408, 429)
REMEDIES = {
    "requester pays": "Set data.user_project, store.user_project or environment.user_project to the Google "
    "Cloud project that pays for requests. A pipeline root cannot be such a bucket.",
    "serviceusage.services.use": "Grant the account the role roles/serviceusage.serviceUsageConsumer on the "
    "project of {user_project}.",
    "user project": "Correct {user_project}.",
    "kms key": "Grant the service agent of Cloud Storage the role roles/cloudkms.cryptoKeyEncrypterDecrypter "
    "on the key of {bucket}.",
    "retention": "Wait until then, or remove the retention policy of {bucket}.",
    " hold ": "Release the hold on the object.",
    "billing account": "Enable billing for the project of {bucket}.",
    "organization's policy": "Ask the administrators of the organization to allow it for {bucket}.",
}
"""Remedies by a part of the message of Cloud Storage, in lower case."""


class GoogleCloudStorage(Storage):
    """The storage of gs://."""

    form = "gs://bucket/prefix"
    takes_endpoint = True
    mount = "/gcs"

    def open(self, url: str, connection: Connection) -> "Bucket":
        root, prefix = self.split(url)
        return Bucket(root.removeprefix("gs://"), prefix.strip("/"), connection)

    def split(self, url: str) -> tuple[str, str]:
        bucket, _, key = url.partition("://")[2].partition("/")
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*[a-z0-9]", bucket):
            raise ValueError(f"and {bucket!r} is not a bucket name")
        return f"gs://{bucket}", key


class Bucket(Objects):
    """The objects in an existing bucket below a prefix, which has no `/` at its ends and may be empty.

    The revision of an Entry is the metageneration of the object.

    Raises:
        StoreError: there are no credentials.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        connection: Connection = Connection(),  # noqa: B008 - immutable
    ) -> None:
        # Otherwise the library requests the bucket's metadata in a thread, for traces.
        os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage
        from google.cloud.storage.retry import DEFAULT_RETRY

        self.url = f"gs://{bucket}/{prefix}".rstrip("/")
        endpoint, timeout = connection.endpoint, connection.timeout
        self._name, self._endpoint, self._connection = bucket, endpoint, connection
        self._prefix = f"{prefix}/" if prefix else ""
        self._timeouts: dict[str, Any] = {
            "timeout": (min(CONNECT_TIMEOUT, timeout), timeout),
            "retry": DEFAULT_RETRY.with_timeout(connection.retry_seconds),
        }
        self._bucket_confirmed = False
        options: dict[str, Any] = {}
        if endpoint:
            credentials = AnonymousCredentials()  # type: ignore[no-untyped-call]
            client_options = {"api_endpoint": endpoint}
            options = {"project": "emulator", "credentials": credentials, "client_options": client_options}
        with self._translate_errors("open", ""):
            client = storage.Client(**options)
            self._bucket = client.bucket(bucket, user_project=connection.user_project)
        url = endpoint or STORAGE
        session = client._http
        session.trust_env = False  # a password in .netrc would replace the credentials
        if proxy := machine.find_proxy(url, "socks"):
            session.proxies = {"http": proxy, "https": proxy}
        if url.startswith("https:"):
            session.verify = machine.find_certificates() or True

    def read(self, key: str) -> tuple[bytes, str]:
        blob = self._blob(key)
        with self._translate_errors("read", key):
            data = blob.download_as_bytes(**self._timeouts)
        return data, str(blob.generation)

    def create(self, key: str, data: bytes) -> None:
        self._write(key, data, ABSENT)

    def replace(self, key: str, data: bytes, generation: str) -> str:
        return self._write(key, data, generation)

    def upload(self, key: str, path: Path) -> None:
        with self._translate_errors("write", key):
            self._blob(key).upload_from_filename(str(path), **self._timeouts)

    def create_from_file(self, key: str, file: IO[bytes], size: int) -> None:
        blob = self._blob(key)
        blob.chunk_size = PART_BYTES
        with self._translate_errors("write", key):
            blob.upload_from_file(file, size=size, if_generation_match=int(ABSENT), **self._timeouts)

    def touch(self, key: str) -> bool:
        blob = self._blob(key)
        blob.custom_time = datetime.now(UTC)  # changes the metageneration, too
        try:
            with self._translate_errors("write", key):
                blob.patch(**self._timeouts)
        except NotFoundError:
            return False
        return True

    def delete(self, entry: Entry) -> bool:
        generations = {
            "if_generation_match": int(entry.generation),
            "if_metageneration_match": int(entry.revision),
        }
        try:
            with self._translate_errors("delete", entry.key):
                self._blob(entry.key).delete(**generations, **self._timeouts)
        except NotFoundError:
            return True
        except ConflictError:
            return False
        return True

    def download(self, key: str, path: Path, generation: str | None = None) -> None:
        blob = self._bucket.blob(self._prefix + key, generation=generation and int(generation))
        with self._translate_errors("read", key):
            # raw: objects with Content-Encoding gzip are not decompressed
            blob.download_to_filename(str(path), raw_download=True, **self._timeouts)

    def find(self, key: str) -> Entry | None:
        with self._translate_errors("read", key):
            blob = self._bucket.get_blob(self._prefix + key, **self._timeouts)
        return self._entry(blob) if blob else None

    def keys(self, prefix: str) -> list[str]:
        return [entry.key for entry in self.entries(prefix)]

    def entries(self, prefix: str) -> list[Entry]:
        with self._translate_errors("list", prefix):
            full = self._prefix + prefix
            blobs = self._bucket.list_blobs(prefix=full, fields=LIST_FIELDS, **self._timeouts)
            entries = sorted((self._entry(blob) for blob in blobs), key=lambda entry: entry.key)
        keys = [entry.key for entry in entries]
        return [entry for entry in entries if not _is_folder(entry, keys)]

    def folders(self, prefix: str) -> list[str]:
        with self._translate_errors("list", prefix):
            pages = self._bucket.list_blobs(prefix=self._prefix + prefix, delimiter="/", **self._timeouts)
            names = {name for page in pages.pages for name in page.prefixes}
        return sorted(filter(None, (name.removeprefix(self._prefix + prefix).rstrip("/") for name in names)))

    def _entry(self, blob: Any) -> Entry:
        mtime = max(time for time in (blob.updated, blob.custom_time) if time)
        key, revision = blob.name.removeprefix(self._prefix), str(blob.metageneration)
        return Entry(key, blob.size, mtime.timestamp(), str(blob.generation), revision)

    def _blob(self, key: str) -> Any:
        return self._bucket.blob(self._prefix + check_key(key))

    def _write(self, key: str, data: bytes, generation: str) -> str:
        blob, media_type = self._blob(key), "application/json"
        try:
            with self._translate_errors("write", key):
                blob.upload_from_string(
                    data, media_type, if_generation_match=int(generation), **self._timeouts
                )
        except ConflictError:
            with suppress(NotFoundError):
                current, current_generation = self.read(key)
                if current == data:
                    return current_generation
            raise
        return str(blob.generation)

    @contextmanager
    def _translate_errors(self, verb: str, key: str) -> Iterator[None]:
        from google.api_core import exceptions
        from google.auth.exceptions import GoogleAuthError
        from google.cloud.storage.exceptions import DataCorruption
        from requests import RequestException  # type: ignore[import-untyped]

        try:
            yield
        except exceptions.NotFound as error:
            if self._bucket_exists():
                raise NotFoundError(f"{self.url} has no {key}.") from error
            raise self._create_error(
                verb,
                key,
                f"there is no bucket {self._name} (404). Correct {self._connection.setting}, or create the "
                f"bucket with `gcloud storage buckets create gs://{self._name}`.",
            ) from error
        except exceptions.PreconditionFailed as error:
            raise ConflictError(f"{self.url}/{key} was changed by another process.") from error
        except (GoogleAuthError, exceptions.Unauthorized) as error:
            raise self._create_error(
                verb,
                key,
                f"no usable Google credentials ({_read_message(error)}). Run `gcloud auth "
                "application-default login`, or give the step's service account access.",
            ) from error
        except (exceptions.GoogleAPIError, RequestException, ConnectionError, DataCorruption) as error:
            raise self._create_request_error(verb, key, error) from error
        except OSError as error:
            raise self._create_error(verb, key, f"{error}. Free disk space on this machine.") from error

    def _create_request_error(self, verb: str, key: str, error: Exception) -> StoreError:
        """Return the error of a request that was refused, or had no correct response after retries."""
        cause = getattr(error, "cause", None) or error  # of a RetryError
        code, endpoint = int(getattr(cause, "code", None) or 0), self._endpoint or STORAGE
        if code >= 500 or code in BUSY:
            reason = f"{endpoint} is busy ({code}: {_read_message(cause)}), even after retries. Retry later."
        elif code >= 400:
            return self._create_error(verb, key, self._describe_refusal(code, _read_message(cause)))
        else:
            reason = (
                f"{endpoint} did not respond correctly ({_read_message(cause)}). Check the network and "
                f"{self._connection.endpoint_setting}, then retry."
            )
        return UnreachableError(str(self._create_error(verb, key, reason)))

    def _describe_refusal(self, code: int, message: str) -> str:
        """Return the message of Cloud Storage for a refused request, and what to do."""
        setting, bucket = self._connection.setting, f"gs://{self._name}"
        default = f"Correct {setting}{f' or {self._connection.endpoint_setting}' if self._endpoint else ''}."
        if code == 403:
            role = "roles/storage.object" + ("Viewer" if setting in READ_ONLY else "User")
            default = f"Grant the account the role {role} on {bucket}, or correct {setting}."
        remedy = next((remedy for part, remedy in REMEDIES.items() if part in message.lower()), default)
        remedy = remedy.format(user_project=self._connection.user_project_setting, bucket=bucket)
        return f"{self._endpoint or 'Cloud Storage'} refuses the request ({code}: {message}). {remedy}"

    def _bucket_exists(self) -> bool:
        """Return whether the bucket exists; listing needs no permission beyond those on objects."""
        from google.api_core.exceptions import NotFound

        if not self._bucket_confirmed:
            with self._translate_errors("list", ""):
                try:
                    next(iter(self._bucket.list_blobs(max_results=1, **self._timeouts)), None)
                except NotFound:
                    return False
            self._bucket_confirmed = True
        return True

    def _create_error(self, verb: str, key: str, reason: str) -> StoreError:
        url = f"{self.url}/{key}".rstrip("/")
        return StoreError(f"Cannot {verb} {url} ({self._connection.setting}): {reason}")


def _is_folder(entry: Entry, keys: list[str]) -> bool:
    """Return whether an object is a folder marker, as consoles and Hadoop create; `keys` are sorted."""
    if entry.size or entry.key.endswith(("/", "_$folder$")):
        return entry.key.endswith(("/", "_$folder$"))
    index = bisect_left(keys, f"{entry.key}/")
    return index < len(keys) and keys[index].startswith(f"{entry.key}/")


def _read_message(error: Any) -> str:
    """Return the message of Cloud Storage as one line of limited length, without a full stop."""
    response = getattr(error, "response", None)
    try:
        text = response.json()["error"]["message"]  # type: ignore[union-attr]
    except (AttributeError, KeyError, TypeError, ValueError):
        text = response.text if response is not None else describe(error)
    return shorten(text, MAX_MESSAGE, placeholder=" …").rstrip(".")
