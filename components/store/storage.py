"""The storage of a URL. Its scheme is an entry point of the group `modelyard.storage`, looked up only here.

    find_storage("https://host/set.zip", "data.source")     # what can be done with it; opens nothing
    open_objects(Store(url="gs://bucket/models"))            # its objects, to read and to write

A path is `file` without its scheme. Only installed distributions have entry points: nothing that a URL or a
dataset holds is executed.
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
    """Say whether a text that names data, code or a store is a path, and not a URL."""
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
        """The configuration key that gives the user project; none has it for the pipeline root."""
        return f"{self.endpoint_setting.partition('.')[0]}.user_project"


class Limits(Protocol):
    """What the `data` section says about reading its source."""

    @property
    def sha256(self) -> str | None:
        """The SHA-256 of the file, when it is known."""

    @property
    def max_bytes(self) -> int:
        """The most bytes that are read."""

    @property
    def timeout(self) -> float:
        """Seconds without a byte after which a request fails."""


class Location(Protocol):
    """A file or a directory somewhere. Every method raises DataError when it cannot be read."""

    def identity(self) -> str:
        """Return what changes when the content may have changed, without fetching it.

        The SHA-256 that the configuration gives is believed: `fetch` checks it.
        """

    def fetch(self, scratch: Path) -> Path:
        """Return the local file or directory, its SHA-256 checked when the configuration gives one.

        Args:
            scratch: directory for what has to be downloaded, made when it is needed. What is downloaded keeps
                its name, and is there whole or not at all; what is on this machine stays where it is.
        """


class Storage:
    """What URLs of one scheme name. A distribution registers a subclass, which is made without arguments.

    Its objects are read as data sources, too, unless it overrides `location`.

    Attributes:
        form: how its URLs look, for errors.
        writable: whether it holds Objects, and not only data sources.
        takes_endpoint: whether it may be an emulator, at another URL, and may have requester pays.
        mount: the folder in which Kubeflow Pipelines shows its objects to steps; None when it does not:
            artifacts of pods cannot be there.
    """

    form: str
    writable: bool = True
    takes_endpoint: bool = False
    mount: str | None = None

    def open(self, url: str, access: Access) -> Objects:  # noqa: ARG002 - for subclasses
        """Return the objects below `url`; nothing is read or written. A storage without it is only for data.

        Raises:
            ValueError: the URL is not one of this form; the message says what is wrong with it.
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
        """Return what `url` names when pods cannot reach it; None when they can."""
        return None

    def location(self, url: str, limits: Limits) -> Location | None:  # noqa: ARG002
        """Return the data source at `url` when it is read otherwise than through `open`.

        Raises:
            ValueError: see `open`.
        """
        return None


def find_storage(url: str, setting: str, shown: str | None = None) -> Storage:
    """Return the storage of a URL or a path.

    Args:
        url: what the configuration says.
        setting: the configuration key that says it, for errors.
        shown: the URL in errors, when it must not be shown whole.

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
    """Return the error about a URL that cannot be used: why, and which forms can.

    Args:
        shown: the URL.
        setting: the configuration key that says it.
        why: what is wrong with it, as the rest of a sentence.
    """
    forms = dict.fromkeys(one.form for one in _load_all() if one.writable or setting == "data.source")
    if not forms:
        return ConfigError("modelyard's own storages are not registered: install modelyard again.")
    return ConfigError(f"{setting} is {shown}, {why}: use {', '.join(forms)}, or a path.")


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
            raise ConfigError(f"{name} is for gs://, and {setting} is {url!r}: remove {name}.")
    if endpoint is not None and not re.match("https?://", endpoint):
        raise ConfigError(f"{key} is {endpoint!r}: give it with its scheme, http://host:port.")
    try:
        return storage.open(url, access)
    except ValueError as error:
        raise unusable_url(repr(url), setting, str(error)) from error


def open_uri(
    uri: str, endpoint: str | None, setting: Setting, user_project: str | None = None
) -> tuple[Objects, str]:
    """Return the objects with which the object, or the folder, at `uri` is reached, and its key.

    Args:
        uri: of the object or the folder.
        endpoint: of an emulator.
        setting: the configuration key that gives `uri`, for errors.
        user_project: see Access.

    Raises:
        ConfigError: see `open_objects`.
        StoreError: the key could lead to another place.
    """
    root, key = find_storage(uri, setting).split(uri)
    store = Store(url=root, endpoint=endpoint, user_project=user_project)
    return open_objects(store, setting), check_key(key.strip("/"))


def local_path(url: str, setting: str) -> Path | None:
    """Return the absolute path when `url` is a file or folder of this machine; else None.

    Raises:
        ConfigError: there is no storage for the URL, or it is incomplete.
    """
    try:
        return find_storage(url, setting).path(url)
    except ValueError as error:
        raise unusable_url(repr(url), setting, str(error)) from error


@cache
def load_storage(scheme: str) -> Storage | None:
    """Return the storage of a scheme, modelyard's own before any other; None when there is none."""
    entry = next((one for one in _entry_points() if one.name == scheme), None)
    return _load(entry) if entry else None


def _load_all() -> Iterator[Storage]:
    for entry in _entry_points():
        with suppress(ConfigError):
            yield _load(entry)


def _entry_points() -> "Iterator[EntryPoint]":
    """Yield modelyard's own storage first: most URLs need no look at all installed distributions."""
    from importlib import metadata

    with suppress(metadata.PackageNotFoundError):
        yield from metadata.distribution("modelyard").entry_points.select(group=GROUP)
    yield from metadata.entry_points(group=GROUP)


def _load(entry: "EntryPoint") -> Storage:
    try:
        storage: Storage = entry.load()()
    except Exception as error:  # whatever a distribution does when it is imported
        raise ConfigError(
            f"The storage of {entry.name}:// cannot be loaded from {entry.value} ({error!r}): install its "
            "distribution again, or use another URL."
        ) from error
    return storage
