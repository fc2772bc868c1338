"""Checks of a source: credentials in its URL, size and SHA-256 of the data."""

import re
from urllib.parse import parse_qs, urlsplit

from modelyard.components.errors import DataError

CREDENTIAL_PARAMETERS = frozenset(
    {"x-goog-signature", "x-amz-signature", "signature", "sig", "token", "access_token"}
)


def redact_url(url: str) -> str:
    """Return `scheme://host/path`, without user, password, query and fragment.

    If the host is malformed, only the scheme is returned: the rest may be a part of a password with a `/`.
    """
    scheme, _, rest = url.partition("://")
    authority, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    host = authority.rpartition("@")[2]
    if not re.fullmatch(r"([^:\[\]]*|\[[^\]]*\])(:\d*)?", host):
        return f"{scheme}://…"
    return f"{scheme}://{host}{slash}{path}"


def has_credentials(url: str) -> bool:
    """Return whether a URL has a user, a password or a query parameter with a credential."""
    try:
        parts = urlsplit(url)
    except ValueError:  # malformed: `locate` raises the error
        return False
    names = {name.lower() for name in parse_qs(parts.query, keep_blank_values=True)}
    return bool(parts.scheme) and ("@" in parts.netloc or not names.isdisjoint(CREDENTIAL_PARAMETERS))


def safe_file_name(path: str) -> str:
    """Return the last part of a URL's path as a file name without special characters."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", path.rpartition("/")[2])
    return name[-100:].lstrip(".") or "download"


def check_sha256(url: str, actual: str, expected: str | None) -> None:
    """Raise DataError if the SHA-256 of a file is not data.sha256, if that is set."""
    if expected not in (None, actual):
        raise DataError(
            f"The SHA-256 of {url} is {actual}, but data.sha256 is {expected}: the file was changed or "
            "damaged. Download the right file, or correct data.sha256 if you trust the new file."
        )


def check_size(url: str, size: int, limit: int) -> None:
    """Raise DataError if the size in bytes, or the size read so far, exceeds the maximum."""
    if size > limit:
        raise DataError(
            f"{url} has {size:,} bytes or more, and data.max_bytes allows {limit:,}. If this "
            "size is expected, raise data.max_bytes."
        )
