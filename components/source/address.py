"""What of an address may be shown, and the file that it names."""

import re
from urllib.parse import parse_qs, urlsplit

SIGNATURES = frozenset({"x-goog-signature", "x-amz-signature", "signature", "sig", "token", "access_token"})


def shown(address: str) -> str:
    """Return `scheme://host/path`, without what may give access: user, password, query and fragment.

    What does not look like an address after that is not shown at all: a password with a `/` in it is one.
    """
    scheme, _, rest = address.partition("://")
    authority, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    host = authority.rpartition("@")[2]
    if not re.fullmatch(r"([^:\[\]]*|\[[^\]]*\])(:\d*)?", host):
        return f"{scheme}://…"
    return f"{scheme}://{host}{slash}{path}"


def holds_secret(address: str) -> bool:
    """Say whether an address has a user or password, or a query that gives access by itself."""
    try:
        parts = urlsplit(address)
    except ValueError:  # malformed, which `locate` says
        return False
    names = {name.lower() for name in parse_qs(parts.query, keep_blank_values=True)}
    return bool(parts.scheme) and ("@" in parts.netloc or not names.isdisjoint(SIGNATURES))


def file_name(path: str) -> str:
    """Return the name of the file at the path of an address, safe as a name on this machine."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", path.rpartition("/")[2])
    return name[-100:].lstrip(".") or "download"
