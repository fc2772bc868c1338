"""The storage of a URL. Its scheme is an entry point of the group `modelyard.storage`, looked up only here.

    find_storage("https://host/set.zip", "data.source")     # the Storage; opens nothing
    open_objects(Store(url="gs://bucket/models"))            # the Objects, to read and write

A path is a URL of the scheme `file`. Only installed distributions have entry points: no content of a URL or a
dataset is executed.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from modelyard.components.errors import ConfigError
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
class Access:
    """How the objects of a storage are accessed.

    Attributes:
        endpoint: URL of an emulator, used without credentials; None: the storage itself.
        user_project: Google Cloud project that pays for the requests; None: the owner of the bucket.
        timeout: seconds without a byte after which a request fails.
        patience: seconds for which a request is retried.
        setting: the configuration key that gives the URL, for errors.
    """

    endpoint: str | None = None
    user_project: str | None = None
    timeout: float = READ_TIMEOUT
    patience: float = 30.0
    setting: Setting = "store.url"

    @property
    def endpoint_setting(self) -> str:
        """The configuration key that gives the endpoint."""
        return ENDPOINT_SETTINGS[self.setting]

    @property
    def user_project_setting(self) -> str:
        """The configuration key of the user project; the pipeline root has none."""
        return f"{self.endpoint_setting.partition('.')[0]}.user_project"


class Limits(Protocol):
    """Limits of the `data` section for reading its source."""

    @property
    def sha256(self) -> str | None:
        """The SHA-256 of the file, when it is known."""

    @property
    def max_bytes(self) -> int:
        """Maximum size in bytes."""

    @property
    def timeout(self) -> float:
        """Seconds without a byte after which a request fails."""


class Location(Protocol):
    """A file or directory of a data source. Every method raises DataError when it cannot be read."""

    def identity(self) -> str:
        """Return a string that changes when the content may have changed, without a download.

        It may be the SHA-256 of the configuration, which `fetch` checks.
        """

    def fetch(self, scratch: Path) -> Path:
        """Return the local file or directory, its SHA-256 checked when the configuration gives one.

        Args:
            scratch: directory for downloads, created when needed. A download keeps its name and is complete
                or absent; a local file is not copied.
        """


class Storage:
    """The storage of one URL scheme. A distribution registers a subclass, which is created without arguments.

    Its objects can also be data sources, which `location` may read in another way.

    Attributes:
        form: the form of its URLs, for errors.
        writable: whether it can be written; otherwise it holds data sources only.
        takes_endpoint: whether it accepts the URL of an emulator and a user project for requester pays.
        mount: the folder in which Kubeflow Pipelines mounts its objects for steps; None when it does not,
            so that artifacts of pods cannot be stored there.
    """

    form: str
    writable: bool = True
    takes_endpoint: bool = False
    mount: str | None = None

    def open(self, url: str, access: Access) -> Objects:  # noqa: ARG002 - for subclasses
        """Return the objects below `url`; nothing is read or written. Read-only storages do not implement it.

        Raises:
            ValueError: the URL does not have this form; the message is the end of a sentence about it.
            StoreError: there are no credentials.
        """
        raise ValueError("which can only be read")

    def split(self, url: str) -> tuple[str, str]:
        """Return the URL that `open` takes to reach the object at `url`, and the object's key.

        Raises:
            ValueError: see `open`.
        """
        scheme, _, rest = url.partition("://")
        host, _, key = rest.partition("/")
        return f"{scheme}://{host}", key

    def path(self, url: str) -> Path | None:  # noqa: ARG002 - for subclasses
        """Return the absolute path when `url` is a file or folder of this machine; else None.

        Raises:
            ValueError: see `open`.
        """
        return None

    def unreachable_from_pods(self, url: str) -> str | None:  # noqa: ARG002
        """Return what `url` is, as "a path of this machine", when pods cannot reach it; None otherwise."""
        return None

    def location(self, url: str, limits: Limits) -> Location | None:  # noqa: ARG002
        """Return the data source at `url` when it is not read through `open`.

        Raises:
            ValueError: see `open`.
        """
        return None


def find_storage(url: str, setting: str, shown: str | None = None) -> Storage:
    """Return the storage of a URL or a path.

    Args:
        url: the URL or path.
        setting: its configuration key, for errors.
        shown: a redacted form of the URL, for errors.

    Raises:
        ConfigError: no installed distribution has a storage of this scheme, or it can only be read.
    """
    scheme = "file" if is_path(url) else url.partition("://")[0].lower()
    why = "which is not a path" if is_path(url) else f"and {scheme}:// is not supported"
    if url and "\0" not in url and (storage := load_storage(scheme)):
        if storage.writable or setting.startswith("data."):
            return storage
        why = "which can only be read"
    raise unusable_url(shown or repr(url), setting, why)


def unusable_url(shown: str, setting: str, why: str) -> ConfigError:
    """Return the error for a URL that cannot be used, with the forms that can.

    Args:
        shown: the URL.
        setting: its configuration key.
        why: the reason, as the end of a sentence.
    """
    forms = dict.fromkeys(one.form for one in _load_all() if one.writable or setting == "data.source")
    if not forms:
        return ConfigError("The storages of modelyard are not registered. Reinstall modelyard.")
    return ConfigError(f"{setting} is {shown}, {why}. Use {', '.join(forms)}, or a path.")


def open_objects(settings: Store, setting: Setting = "store.url") -> Objects:
    """Return the objects below `settings.url`; a relative path starts at the working directory.

    Args:
        settings: the URL, and the endpoint of an emulator.
        setting: the configuration key that gives the URL, for errors.

    Raises:
        ConfigError: there is no storage for the URL, or it is incomplete.
        StoreError: there are no credentials for it.
    """
    url, endpoint = settings.url, settings.endpoint
    storage = find_storage(url, setting)
    access = Access(endpoint, settings.user_project, setting=setting)
    key = access.endpoint_setting
    for value, name in ((endpoint, key), (settings.user_project, access.user_project_setting)):
        if value is not None and not storage.takes_endpoint:
            raise ConfigError(f"{name} is only for gs://, and {setting} is {url!r}. Remove {name}.")
    if endpoint is not None and not re.match("https?://", endpoint):
        raise ConfigError(f"{key} is {endpoint!r}, which has no scheme. Set it to http://host:port.")
    try:
        return storage.open(url, access)
    except ValueError as error:
        raise unusable_url(repr(url), setting, str(error)) from error


def open_uri(
    uri: str, endpoint: str | None, setting: Setting, user_project: str | None = None
) -> tuple[Objects, str]:
    """Return the Objects that contain `uri`, and its key.

    Args:
        uri: the URI of an object or a folder.
        endpoint: the URL of an emulator.
        setting: the configuration key that gives `uri`, for errors.
        user_project: see Access.

    Raises:
        ConfigError: see `open_objects`.
        StoreError: the key leads out of the storage.
    """
    root, key = find_storage(uri, setting).split(uri)
    store = Store(url=root, endpoint=endpoint, user_project=user_project)
    return open_objects(store, setting), check_key(key.strip("/"))


def local_path(url: str, setting: str) -> Path | None:
    """Return the absolute path when `url` is a file or folder of this machine; otherwise None.

    Raises:
        ConfigError: there is no storage for the URL, or it is incomplete.
    """
    try:
        return find_storage(url, setting).path(url)
    except ValueError as error:
        raise unusable_url(repr(url), setting, str(error)) from error


@cache
def load_storage(scheme: str) -> Storage | None:
    """Return the storage of a scheme, preferring those of modelyard; None when none is installed."""
    entry = next((one for one in _entry_points() if one.name == scheme), None)
    return _load(entry) if entry else None


def _load_all() -> Iterator[Storage]:
    for entry in _entry_points():
        with suppress(ConfigError):
            yield _load(entry)


def _entry_points() -> "Iterator[EntryPoint]":
    """Yield the entry points of modelyard first: most URLs need no search of all distributions."""
    from importlib import metadata

    with suppress(metadata.PackageNotFoundError):
        yield from metadata.distribution("modelyard").entry_points.select(group=GROUP)
    yield from metadata.entry_points(group=GROUP)


def _load(entry: "EntryPoint") -> Storage:
    try:
        storage: Storage = entry.load()()
    except Exception as error:  # importing a distribution may raise anything
        raise ConfigError(
            f"The storage of {entry.name}:// cannot be loaded from {entry.value} ({error!r}). Reinstall its "
            "distribution, or use another URL."
        ) from error
    return storage
