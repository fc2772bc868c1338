"""What Kubeflow Pipelines' API server, or what stands in front of it, says no with, in plain words."""

import json
import re
from urllib.parse import urlsplit

from modelyard.components.errors import BackendError, ConflictError, ModelyardError, NotFoundError
from modelyard.pipelines.runners.kfp.endpoint import COOKIE, MOUNTED, TOKEN, Credentials, Endpoint

LONGEST = 600
# Before the cause it says at length what it failed to do for that.
CHAIN = re.compile(r"^.*(?:\w+Error|Invalid input error|Already exist error): ", re.DOTALL)
MAKE = f"Set {TOKEN} (or {COOKIE}, for a login page) to one that holds."


def refused(status: int, body: str, endpoint: Endpoint, credentials: Credentials) -> ModelyardError:
    """Return the error for an answer that is no success.

    Args:
        status: of the answer.
        body: of the answer; JSON with a message, if Kubeflow Pipelines itself answered.
        endpoint: what was asked.
        credentials: what was sent along.
    """
    said = message(body)
    if status == 401:
        return unauthenticated(endpoint, credentials)
    if status == 403:
        return BackendError(
            f"Kubeflow Pipelines at {endpoint} does not allow it: {said or 'it does not say why'}. Ask who "
            "runs it for the right, or check that the namespace (environment.runs.namespace) is yours."
        )
    if said is None:
        return stranger(f"answered with status {status}", endpoint)
    if status == 404:
        return NotFoundError(f"Kubeflow Pipelines at {endpoint} has no such thing: {said}.")
    if status == 409:
        return ConflictError(f"Kubeflow Pipelines at {endpoint} has it already: {said}.")
    if status >= 500 and status != 501:
        return BackendError(
            f"Kubeflow Pipelines at {endpoint} failed ({status}): {said}. Try it again; its own log says "
            "more."
        )
    return BackendError(f"Kubeflow Pipelines at {endpoint} refuses it ({status}): {said}.")


def message(body: str) -> str | None:
    """Return what Kubeflow Pipelines says in the body of an error, or None if it is not from it."""
    try:
        found = json.loads(body)
        said = str(found.get("message") or found["error_message"]).strip()
    except (ValueError, KeyError, AttributeError):
        return None
    return CHAIN.sub("", said)[:LONGEST].rstrip(".")


def unauthenticated(endpoint: Endpoint, credentials: Credentials) -> BackendError:
    """Return the error for somebody whom the API does not know."""
    if credentials.origin:
        return BackendError(
            f"Kubeflow Pipelines at {endpoint} does not accept what {credentials.origin} holds (401): it has "
            f"expired, or was made for something else. {MAKE}"
        )
    return BackendError(f"Kubeflow Pipelines at {endpoint} wants to know who asks (401). {MAKE}")


def login_page(endpoint: Endpoint, credentials: Credentials, location: str | None = None) -> BackendError:
    """Return the error for a web page where an answer of the API should be.

    Args:
        endpoint: what was asked.
        credentials: what was sent along.
        location: where the answer sends to, if it does.
    """
    parts = urlsplit(location or "")
    place = f" and sends to {parts.scheme}://{parts.netloc}{parts.path}" if parts.netloc else ""
    sent = f"does not accept what {credentials.origin} holds" if credentials.origin else "wants a login"
    return BackendError(
        f"{endpoint} answers with a web page{place}, not as Kubeflow Pipelines' API. A proxy in front of it "
        f"{sent}, or the address lacks a part, such as /pipeline at the end. {MAKE}"
    )


def stranger(what: str, endpoint: Endpoint) -> BackendError:
    """Return the error for something else that answers at the address."""
    return BackendError(
        f"What answers at {endpoint} is not Kubeflow Pipelines' API v2beta1: it {what}. Correct the address; "
        "Kubeflow Pipelines before 2.0 has no such API."
    )


def unreachable(endpoint: Endpoint, why: str) -> BackendError:
    """Return the error for an address where nothing answers."""
    remedy = (
        "Does it run (`kubectl get pods -n " + endpoint.tunnel + "`)?"
        if endpoint.tunnel
        else f"Is the address right ({endpoint.origin}), does it run, and is it reached from here?"
    )
    return BackendError(f"Kubeflow Pipelines at {endpoint} does not answer: {why}. {remedy}")


def no_token(credentials: Credentials, why: str) -> BackendError:
    """Return the error for a mounted token that cannot be read."""
    return BackendError(
        f"The token for Kubeflow Pipelines in {credentials.path} cannot be read: {why}. Mount one there (a "
        f"projected volume with the audience pipelines.kubeflow.org), or set {MOUNTED} or {TOKEN}."
    )
