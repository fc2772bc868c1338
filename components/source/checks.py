"""What a source must satisfy: a URL that shows no secrets, the size and SHA-256 of what is fetched."""

import re
from urllib.parse import parse_qs, urlsplit

from modelyard.components.errors import DataError

CREDENTIAL_PARAMETERS = frozenset(
    {"x-goog-signature", "x-amz-signature", "signature", "sig", "token", "access_token"}
)


def redact_url(url: str) -> str:
    """Return `scheme://host/path`, without what may give access: user, password, query and fragment.

    What does not look like an url after that is not shown at all: a password with a `/` in it is one.
    """
    scheme, _, rest = url.partition("://")
    authority, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    host = authority.rpartition("@")[2]
    if not re.fullmatch(r"([^:\[\]]*|\[[^\]]*\])(:\d*)?", host):
        return f"{scheme}://…"
    return f"{scheme}://{host}{slash}{path}"


def has_credentials(url: str) -> bool:
    """Say whether an url has a user or password, or a query that gives access by itself."""
    try:
        parts = urlsplit(url)
    except ValueError:  # malformed, which `locate` says
        return False
    names = {name.lower() for name in parse_qs(parts.query, keep_blank_values=True)}
    return bool(parts.scheme) and ("@" in parts.netloc or not names.isdisjoint(CREDENTIAL_PARAMETERS))


def safe_file_name(path: str) -> str:
    """Return the name of the file at the path of an url, safe as a name on this machine."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", path.rpartition("/")[2])
    return name[-100:].lstrip(".") or "download"


def check_sha256(url: str, actual: str, expected: str | None) -> None:
    """Compare a file's SHA-256 with what the configuration says; nothing when it says none.

    Raises:
        DataError: they differ.
    """
    if expected not in (None, actual):
        raise DataError(
            f"The SHA-256 of {url} is {actual} and data.sha256 says {expected}: it is another file, or "
            "was changed or damaged. Get the right file, or correct data.sha256 if you trust this one."
        )


def check_size(url: str, size: int, limit: int) -> None:
    """Compare the bytes that something has, or has so far, with the most that it may have.

    Raises:
        DataError: there are more.
    """
    if size > limit:
        raise DataError(
            f"{url} has {size:,} bytes or more, and data.max_bytes allows {limit:,}. Raise "
            "data.max_bytes if that is right."
        )
