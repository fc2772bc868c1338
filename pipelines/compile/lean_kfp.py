"""KFP's SDK without the client of its API, whose import takes as long as all the rest of it."""

import os

VARIABLE = "_KFP_RUNTIME"  # kfp asks for it when it is imported, to spare steps the same; kfp.dsl asks again


def load() -> None:
    """Import `kfp`, if nobody has; what of it is needed is imported by name afterwards, such as kfp.dsl."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "true"
    try:
        import kfp  # noqa: F401
    finally:
        os.environ.pop(VARIABLE) if before is None else os.environ.__setitem__(VARIABLE, before)
