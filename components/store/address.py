"""Where objects are: `gs://bucket/prefix`, `file:///path` or a path."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from modelyard.components.errors import ConfigError
from modelyard.components.store.bucket import Bucket
from modelyard.components.store.folder import Folder
from modelyard.components.store.objects import Objects
from modelyard.components.store.settings import Store


def open_objects(settings: Store) -> Objects:
    """Return the folder or the bucket that `settings.url` names; a relative path starts here.

    Raises:
        ConfigError: the address is of another kind, or incomplete.
        StoreError: there are no credentials for it.
    """
    url, endpoint = settings.url, settings.endpoint
    parts = urlsplit(url)
    if parts.scheme == "gs" and parts.netloc:
        if endpoint is not None and urlsplit(endpoint).scheme not in ("http", "https"):
            raise ConfigError(f"store.endpoint is {endpoint!r}: give it with its scheme, http://host:port.")
        return Bucket(parts.netloc, parts.path.strip("/"), endpoint)
    if endpoint is not None:
        raise ConfigError(f"store.endpoint is for gs:// and store.url is {url!r}: remove store.endpoint.")
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path:
        return Folder(Path(unquote(parts.path)))
    if "://" in url or not url or "\0" in url:
        raise ConfigError(
            f"store.url is {url!r}, which is not a model store's address: use gs://bucket/prefix, "
            "file:///path, or a path."
        )
    return Folder(Path(url).expanduser().absolute())


def open_uri(uri: str, endpoint: str | None = None) -> tuple[Objects, str]:
    """Return the bucket that `gs://bucket/key` names, and the key."""
    parts = urlsplit(uri)
    return open_objects(Store(url=f"gs://{parts.netloc}", endpoint=endpoint)), parts.path.strip("/")
