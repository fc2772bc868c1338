"""Why a file on the web cannot be had, in plain words, and what to do."""

import socket
import ssl

import httpx


def refusal(answer: httpx.Response) -> str | None:
    """Return why a server's answer is not the file; None when it is."""
    code = answer.status_code
    if code in (401, 403, 407):
        return (
            f"the server does not permit it ({code}). Give an address that this machine may read; a signed "
            "address may have expired."
        )
    if code in (404, 410):
        return f"the server has no such file ({code}). Correct data.source."
    if not answer.is_success:
        return f"the server answered {code}. Correct data.source."
    if answer.headers.get("content-type", "").lower().startswith("text/html"):
        return (
            "the server sent a web page and not a file; it may be one that asks for a login or leads to the "
            "download. Give the address of the file itself."
        )
    return None


def failure(error: Exception, host: str) -> str:
    """Return why the server at `host` could not be talked to."""
    said = " ".join(str(error).split())[:300]
    if _caused_by(error, socket.gaierror):
        return f"there is no host {host} ({said}). Correct data.source, or check the network."
    if _caused_by(error, ssl.SSLError):
        return (
            f"no encrypted connection can be made ({said}). If your network has a certificate authority of "
            "its own, set SSL_CERT_FILE to its certificate."
        )
    return f"the connection failed ({said}), also when tried again. Check the network and data.source."


def _caused_by(error: BaseException | None, kind: type[Exception]) -> bool:
    while error and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error is not None
