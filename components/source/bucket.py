"""A source in a bucket of Google Cloud Storage: an object, or all objects below a prefix as a directory.

Requests are bounded in time, and tried again while the service is busy or out of reach. Every object is
read in the version that was listed, and the client library compares its checksum.
"""

import hashlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from modelyard.components import artifacts
from modelyard.components.errors import ConfigError, DataError
from modelyard.components.source.address import file_name
from modelyard.components.source.checks import check_sha256, check_size
from modelyard.components.source.settings import Source
from modelyard.components.store.client import no_credentials, open_client, said

CONNECT_TIMEOUT = 5.0
READERS = 8
LISTED = "items(name,generation,size),nextPageToken"


class InBucket:
    """See Location.

    Args:
        bucket: the bucket's name.
        name: an object's, or a prefix; all of the bucket when empty.
        source: gives the limits, the emulator's address, and the SHA-256 when it is known.
        patience: seconds for which a request is tried again.

    Raises:
        ConfigError: there cannot be such a bucket, or the emulator's address is incomplete.
    """

    def __init__(self, bucket: str, name: str, source: Source, patience: float = 30.0) -> None:
        self._url = f"gs://{bucket}/{name}"
        self._bucket_name, self._name, self._source, self._patience = bucket, name, source, patience
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*[a-z0-9]", bucket):
            raise ConfigError(
                f"data.source is {self._url}, and {bucket!r} is not a bucket's name: use gs://bucket/path."
            )
        if source.endpoint and not re.match(r"https?://", source.endpoint):
            raise ConfigError(
                f"data.endpoint is {source.endpoint!r}: give it with its scheme, http://host:port."
            )

    def identity(self) -> str:
        """See Location."""
        if self._source.sha256:
            return self._source.sha256
        with self._plainly():
            if blob := self._object():
                return f"{blob.generation} {blob.crc32c}"
            lines = (f"{inside}\0{blob.generation}\n" for inside, blob in self._listed())
            return hashlib.sha256("".join(lines).encode()).hexdigest()

    def fetch(self, scratch: Path) -> Path:
        """See Location."""
        with self._plainly():
            blob = self._object()
            target = scratch / file_name((self._name or self._bucket_name).rstrip("/"))
            if blob:
                self._fetch_file(blob, target)
            else:
                self._fetch_folder(target)
        return target

    def _fetch_file(self, blob: Any, target: Path) -> None:
        check_size(self._url, blob.size, self._source.max_bytes)
        partial = target.with_name(f"{target.name}.partial")
        try:
            self._download(blob, partial)
            if self._source.sha256:
                check_sha256(self._url, artifacts.sha256(partial), self._source.sha256)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    def _fetch_folder(self, target: Path) -> None:
        if self._source.sha256:
            raise DataError(
                f"data.sha256 is for one file and {self._url} has many: remove data.sha256, or make an "
                "archive of them."
            )
        objects = self._listed()
        check_size(self._url, sum(blob.size for _, blob in objects), self._source.max_bytes)

        with artifacts.writing(target) as folder, ThreadPoolExecutor(READERS) as readers:

            def one(item: tuple[str, Any]) -> None:
                self._download(item[1], folder / item[0])

            list(readers.map(one, objects))  # after an error, those that have not begun are cancelled

    def _object(self) -> Any | None:
        """Return the object of this very name, if there is one."""
        if not self._name or self._name.endswith("/"):
            return None
        return self._bucket.get_blob(self._name, **self._bounds)

    def _listed(self) -> list[tuple[str, Any]]:
        """Return the objects below the name, with their paths below it, in order."""
        prefix = f"{self._name.rstrip('/')}/" if self._name else ""
        blobs = self._bucket.list_blobs(prefix=prefix, fields=LISTED, **self._bounds)
        # A name that ends with a slash is what consoles make for an empty folder.
        found = [(self._checked(blob.name, prefix), blob) for blob in blobs if not blob.name.endswith("/")]
        if not found:
            raise self._unusable("there is no such object and none below it (404). Correct data.source.")
        return sorted(found, key=lambda item: item[0])

    def _checked(self, name: str, prefix: str) -> str:
        """Return the path of an object below the prefix when it cannot lead out of a directory."""
        inside = name.removeprefix(prefix)
        if any(part in ("", ".", "..") or "\0" in part for part in inside.split("/")):
            raise self._unusable(
                f"the object {name!r} cannot become a file, since its name has an empty part or one that "
                "leads elsewhere. Rename the object."
            )
        return inside

    def _download(self, blob: Any, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Raw: a gzip-encoded object stays the bytes that are stored, whose size was checked.
        blob.download_to_filename(str(path), raw_download=True, **self._bounds)

    @cached_property
    def _bucket(self) -> Any:
        return open_client(self._source.endpoint).bucket(self._bucket_name)

    @cached_property
    def _bounds(self) -> dict[str, Any]:
        from google.cloud.storage.retry import DEFAULT_RETRY

        timeouts = (min(CONNECT_TIMEOUT, self._source.timeout), self._source.timeout)
        return {"timeout": timeouts, "retry": DEFAULT_RETRY.with_timeout(self._patience)}

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        """Turn what the client library and the system raise into errors about the data."""
        from google.api_core import exceptions
        from google.auth.exceptions import GoogleAuthError
        from google.cloud.storage.exceptions import DataCorruption
        from requests import RequestException  # type: ignore[import-untyped]

        try:
            yield
        except exceptions.NotFound as error:
            raise self._unusable(
                f"there is no bucket {self._bucket_name}, or an object was replaced while it was read (404). "
                "Correct data.source, or retry."
            ) from error
        except (exceptions.Forbidden, exceptions.Unauthorized) as error:
            raise self._unusable(
                f"the account has no permission ({int(error.code or 403)}). Grant it the role "
                f"roles/storage.objectViewer on gs://{self._bucket_name}, or correct data.source."
            ) from error
        except GoogleAuthError as error:
            raise self._unusable(no_credentials(error)) from error
        except (exceptions.GoogleAPIError, RequestException, ConnectionError, DataCorruption) as error:
            raise self._unusable(
                f"{self._source.endpoint or 'https://storage.googleapis.com'} did not answer as it should "
                f"({said(error)}). Check the network, then retry."
            ) from error
        except OSError as error:
            raise self._unusable(f"{error}. Make room for the file on this machine.") from error

    def _unusable(self, why: str) -> DataError:
        return DataError(f"Cannot read {self._url} (data.source): {why}")
