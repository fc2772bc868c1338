"""Which requests there are: a method and a path become a `Call`."""

import re
from functools import lru_cache
from typing import NamedTuple

from modelyard.components.serve.replies import Refused

LONGEST_PATH = 512
_ROUTES = {
    "page": ("GET", r"/"),
    "metrics": ("GET", r"/metrics"),
    "live": ("GET", r"/v2/health/live"),
    "ready": ("GET", r"/v2/health/ready"),
    "server": ("GET", r"/v2/?"),
    "metadata": ("GET", r"/v2/models/(?P<name>[^/:]+)(?:/versions/(?P<version>[^/:]+))?"),
    "model_ready": ("GET", r"/v2/models/(?P<name>[^/:]+)(?:/versions/(?P<version>[^/:]+))?/ready"),
    "infer": ("POST", r"/v2/models/(?P<name>[^/:]+)(?:/versions/(?P<version>[^/:]+))?/infer"),
    "status": ("GET", r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>[^/:]+))?"),
    "predict": ("POST", r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>[^/:]+))?:predict"),
}
_PATTERNS = [(route, method, re.compile(pattern)) for route, (method, pattern) in _ROUTES.items()]


class Call(NamedTuple):
    """What a request asks for; `name` and `version` are as they stand in the path."""

    route: str
    name: str | None
    version: str | None


@lru_cache(maxsize=256)
def _match(method: str, path: str) -> Call | Refused:
    """Return what a method and a path ask for, or why nothing answers them."""
    allowed = set()
    for route, needed, pattern in _PATTERNS:
        if found := pattern.fullmatch(path):
            if needed == method:
                groups = found.groupdict()
                return Call(route, groups.get("name"), groups.get("version"))
            allowed.add(needed)
    if allowed:
        needed = ", ".join(sorted(allowed))
        return Refused(
            405, f"{method[:20]} {path[:80]} is not possible; use {needed}.", ((b"allow", needed.encode()),)
        )
    return Refused(
        404,
        f"There is nothing at {path[:80]}; predictions are at /v1/models/NAME:predict and "
        "/v2/models/NAME/infer, and the page at / shows an example.",
    )


def resolve(method: str, path: str) -> Call:
    """Return what a request asks for.

    Raises:
        Refused: 404 or 405, nothing answers it.
    """
    found = _match(method, path[:LONGEST_PATH])
    if isinstance(found, Refused):
        raise Refused(found.reply.status, str(found), found.reply.headers)
    return found
