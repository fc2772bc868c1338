"""Tell an address that a run ended. The address is a secret: whoever knows it can write there."""

import logging
import os
from collections.abc import Mapping

VARIABLE = "MODELYARD_WEBHOOK"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
TIMEOUT = 10.0


def post(value: Mapping[str, str | None]) -> str | None:
    """Post a value as JSON to the address in MODELYARD_WEBHOOK, if there is one.

    Returns:
        What went wrong, in a sentence without the address; None when nothing did, or there is none.
    """
    address = os.environ.get(VARIABLE, "").strip()
    if not address:
        return None
    import httpx

    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log the address
    try:
        url = httpx.URL(address)
        if url.scheme != "https" and not (url.scheme == "http" and url.host in LOOPBACK):
            return f"The webhook was not told: {VARIABLE} has to be an https:// address."
        answer = httpx.post(url, json=dict(value), timeout=TIMEOUT)
    except (httpx.HTTPError, httpx.InvalidURL) as error:  # whose words may name the address
        return f"The webhook was not told: {type(error).__name__}. Is {VARIABLE} right, and does it answer?"
    if not answer.is_success:
        return f"The webhook was not told: it answered with status {answer.status_code}."
    return None
