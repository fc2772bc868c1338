"""The place that a source names: on this machine, on the web, or in a bucket.

place = locate(source)
place.identity()        # looks at it, and fetches nothing
place.fetch(scratch)    # the file or directory, on this machine
"""

from importlib import metadata
from pathlib import Path
from typing import Protocol

from modelyard.components.errors import ConfigError, DataError
from modelyard.components.source.address import shown
from modelyard.components.source.disk import OnDisk
from modelyard.components.source.settings import Source


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


def locate(source: Source) -> Location:
    """Return the place that `source.source` names; a relative path starts at the working directory.

    The digits are a file of scikit-learn, found without importing it.

    Raises:
        ConfigError: the address is of another kind, or incomplete.
        DataError: scikit-learn is not installed.
    """
    if source.kind == "digits":
        return OnDisk(_digits())
    address = source.source or ""
    scheme, separator, rest = address.partition("://")
    if not separator and address and "\0" not in address:
        return OnDisk(Path(address).expanduser().absolute(), source.sha256)
    if scheme.lower() in ("http", "https") and rest:
        from modelyard.components.source.web import OnWeb

        return OnWeb(address, source)
    if scheme.lower() == "gs" and rest:
        from modelyard.components.source.bucket import InBucket

        bucket, _, name = rest.partition("/")
        return InBucket(bucket, name, source)
    named = shown(address) if separator else repr(address)
    raise ConfigError(
        f"data.source is {named}, which is not a place that modelyard reads from: use a path, "
        "https://host/path, or gs://bucket/path."
    )


def _digits() -> Path:
    try:
        package = metadata.distribution("scikit-learn")
    except metadata.PackageNotFoundError as error:
        raise DataError("The digits ship with scikit-learn, which is not installed: install it.") from error
    return Path(str(package.locate_file("sklearn/datasets/data/digits.csv.gz")))
