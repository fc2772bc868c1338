"""How an address is shown: messages and logs never hold what gives access to it."""

import re


def shown(address: str) -> str:
    """Return `scheme://host/path`: without user, password, query and fragment.

    What does not look like an address after that is not shown at all: a password with a `/` in it is one.
    """
    scheme, _, rest = address.partition("://")
    authority, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    host = authority.rpartition("@")[2]
    if not re.fullmatch(r"([^:\[\]]*|\[[^\]]*\])(:\d*)?", host):
        return f"{scheme}://…"
    return f"{scheme}://{host}{slash}{path}"
