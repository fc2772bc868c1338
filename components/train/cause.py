"""What an exception of a library says, as one sentence that fits into a message of ours."""

LENGTH = 400


def said(error: BaseException) -> str:
    """Return the exception's class and text as one line of bounded length that ends with a full stop."""
    text = " ".join(str(error).split())
    if len(text) > LENGTH:
        text = text[:LENGTH] + " …"
    return f"{type(error).__name__}: {text}".rstrip(".: ") + "."
