"""What an exception of a library says, as one sentence that fits into a message of ours."""

import re

LENGTH = 400
ANSI = re.compile(r"\x1b\[[0-9;]*m")  # Keras prints in bold


def said(error: BaseException) -> str:
    """Return the exception's class and text as one line of bounded length that ends with a full stop."""
    text = str(error.args[0] if len(error.args) == 1 else error)  # str() of a KeyError is a repr
    text = " ".join(ANSI.sub("", text).split())
    if len(text) > LENGTH:
        text = text[:LENGTH] + " …"
    return f"{type(error).__name__}: {text}".rstrip(".: ") + "."
