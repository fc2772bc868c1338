"""Storage by URL scheme: the scheme is the name of an entry point in the group `modelyard.storage`.

    find_storage("https://host/set.zip", "data.source")     # the Storage, without opening it
    open_objects(Store(url="gs://bucket/models"))            # the Objects, to read and write

A path has the scheme `file`. Entry points belong to installed distributions, so a URL loads no other code.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from modelyard.components.errors import ConfigError, describe
from modelyard.components.store.objects import Objects, check_key
from modelyard.components.store.settings import Store

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "modelyard.storage"
READ_TIMEOUT = 60.0
Setting = Literal["store.url", "data.source", "model.code", "environment.pipeline_root"]
ENDPOINT_SETTINGS: dict[Setting, str] = {
    "store.url": "store.endpoint",
    "data.source": "data.endpoint",
    "model.code": "store.endpoint",  # it was uploaded there
    "environment.pipeline_root": "environment.storage_endpoint",
}


def is_path(text: str) -> bool:
    """Return whether the location of data, code or a store is a path, not a URL."""
    return "://" not in text


@dataclass(frozen=True)
class Connection:
    """The options of a connection to a storage.

    Attributes:
        endpoint: URL of an emulator, which needs no credentials.
        user_project: Google Cloud project that is billed for requests; default: the owner of the bucket.
        timeout: seconds without data after which a request fails.
        retry_seconds: seconds for which a request is retried.
        setting: the configuration key of the URL, for errors.
    """

    endpoint: str | None = None
    user_project: str | None = None
    timeout: float = READ_TIMEOUT
    retry_seconds: float = 30.0
    setting: Setting = "store.url"

    @property
    def endpoint_setting(self) -> str:
        """The configuration key of the endpoint."""
        return ENDPOINT_SETTINGS[self.setting]

    @property
    def user_project_setting(self) -> str:
        """The configuration key of the user project; the pipeline root has none."""
        return f"{self.endpoint_setting.partition('.')[0]}.user_project"


class Limits(Protocol):
    """The section `data`: SHA-256 of a file, if known; maximum bytes; seconds without data until an error."""

    sha256: str | None
    max_bytes: int
    timeout: float


class Location(Protocol):
    """A file or folder of a data source. Every method raises DataError if it cannot be read."""

    def identity(self) -> str:
        """Return a string that changes if the content may have changed, without a download.

        It may be the SHA-256 in the configuration, which `fetch` verifies.
        """

    def fetch(self, scratch: Path) -> Path:
        """Return the path of the file or folder; its SHA-256, if configured, is verified.

        Downloads are written atomically to the folder `scratch`; local files are not copied.
        """


class Storage:
    """The storage of a URL scheme; its objects can also be data sources. Subclasses have no arguments.

    Attributes:
        form: the form of its URLs, for errors.
        writable: whether it is writable; otherwise it contains data sources only.
        takes_endpoint: whether it supports the URL of an emulator, and a user project for Requester Pays.
        mount: the folder in which Kubeflow Pipelines mounts its objects for steps; None if it does not.
            Then no pipeline root can be in this storage.
    """

    form: str
    writable: bool = True
    takes_endpoint: bool = False
    mount: str | None = None

    def open(self, url: str, connection: Connection) -> Objects:  # noqa: ARG002
        """Return the objects below `url`, without reading or writing; read-only storages do not override it.

        Raises:
            ValueError: the URL is invalid; the message is the end of a sentence about the URL.
            StoreError: there are no credentials.
        """
        raise ValueError("which can only be read")

    def split(self, url: str) -> tuple[str, str]:
        """Return the URL of the root for `open`, and the key of the object at `url`.

        Raises:
            ValueError: see `open`.
        """
        scheme, _, rest = url.partition("://")
        host, _, key = rest.partition("/")
        return f"{scheme}://{host}", key

    def path(self, url: str) -> Path | None:  # noqa: ARG002
        """Return the absolute path if `url` is a file or folder of this machine, else None.

        Raises:
            ValueError: see `open`.
        """
        return None

    def unreachable_from_pods(self, url: str) -> str | None:  # noqa: ARG002
        """Return a description such as "a path of this machine" if pods cannot reach `url`, else None."""
        return None

    def location(self, url: str, limits: Limits) -> Location | None:  # noqa: ARG002
        """Return the data source at `url`; None if it is read with `open`.

        Raises:
            ValueError: see `open`.
        """
        return None


def find_storage(url: str, setting: str, display_url: str | None = None) -> Storage:
    """Return the storage of a URL or path; errors name its configuration key and the URL without secrets.

    Raises:
        ConfigError: no installed distribution supports the scheme, or the storage is read-only.
    """
    scheme = "file" if is_path(url) else url.partition("://")[0].lower()
    reason = "which is not a path" if is_path(url) else f"and {scheme}:// is not supported"
    if url and "\0" not in url and (storage := load_storage(scheme)):
        if storage.writable or setting.startswith("data."):
            return storage
        reason = "which can only be read"
    raise unusable_url(display_url or repr(url), setting, reason)


def unusable_url(url: str, setting: str, reason: str) -> ConfigError:
    """Return the error for an unsupported URL, with the supported forms; `reason` ends the sentence."""
    storages = [storage for storage in _load_all() if storage.writable or setting == "data.source"]
    if not storages:
        return ConfigError("No storage is registered. Reinstall modelyard.")
    forms = ", ".join(dict.fromkeys(storage.form for storage in storages))
    return ConfigError(f"{setting} is {url}, {reason}. Use {forms}, or a path.")


def open_objects(settings: Store, setting: Setting = "store.url") -> Objects:
    """Return the objects below `settings.url`; a path may be relative to the working directory.

    Raises:
        ConfigError: the URL is invalid or not supported.
        StoreError: there are no credentials for it.
    """
    url, endpoint = settings.url, settings.endpoint
    storage = find_storage(url, setting)
    connection = Connection(endpoint, settings.user_project, setting=setting)
    key = connection.endpoint_setting
    for value, name in ((endpoint, key), (settings.user_project, connection.user_project_setting)):
        if value is not None and not storage.takes_endpoint:
            raise ConfigError(f"{name} is set, and {setting} is {url!r}, not gs://. Remove {name}.")
    if endpoint is not None and not re.match("https?://", endpoint):
        raise ConfigError(f"{key} is {endpoint!r}, which has no scheme. Set it to http://host:port.")
    try:
        return storage.open(url, connection)
    except ValueError as error:
        raise unusable_url(repr(url), setting, str(error)) from error


def open_uri(
    uri: str, endpoint: str | None, setting: Setting, user_project: str | None = None
) -> tuple[Objects, str]:
    """Return the objects that contain an object or folder, and its key; see Connection and `open_objects`.

    Raises:
        ConfigError: see `open_objects`.
        StoreError: the key is invalid, or there are no credentials.
    """
    root, key = find_storage(uri, setting).split(uri)
    store = Store(url=root, endpoint=endpoint, user_project=user_project)
    return open_objects(store, setting), check_key(key.strip("/"))


def local_path(url: str, setting: str) -> Path | None:
    """Return the absolute path if `url` is a file or folder of this machine, else None.

    Raises:
        ConfigError: the URL is invalid or not supported.
    """
    try:
        return find_storage(url, setting).path(url)
    except ValueError as error:
        raise unusable_url(repr(url), setting, str(error)) from error


@cache
def load_storage(scheme: str) -> Storage | None:
    """Return the storage of a scheme, preferring those of modelyard; None if none is installed."""
    return next((_load(entry) for entry in _entry_points() if entry.name == scheme), None)


def _load_all() -> Iterator[Storage]:
    for entry in _entry_points():
        with suppress(ConfigError):
            yield _load(entry)


def _entry_points() -> "Iterator[EntryPoint]":
    """Yield the entry points, those of modelyard first, so that most URLs need no search."""
    from importlib import metadata

    with suppress(metadata.PackageNotFoundError):
        yield from metadata.distribution("modelyard").entry_points.select(group=GROUP)
    yield from metadata.entry_points(group=GROUP)


def _load(entry: "EntryPoint") -> Storage:
    try:
        storage: Storage = entry.load()()
    except Exception as error:  # importing a distribution may raise anything
        raise ConfigError(
            f"The storage of {entry.name}:// ({entry.value}) cannot be loaded: {describe(error)} Reinstall "
            "its distribution, or use another URL."
        ) from error
    return storage
