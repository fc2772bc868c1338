"""Requests to the API server of Kubeflow Pipelines: every failure leaves here as an error of ours."""

import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import kfp_server_api
import urllib3
from kfp_server_api.rest import RESTClientObject

from modelyard.components.errors import BackendError, ConflictError, ModelyardError, NotFoundError

TOKEN, COOKIE = "KF_PIPELINES_TOKEN", "KF_PIPELINES_COOKIE"
SERVICE = "ml-pipeline"
UNAVAILABLE = (429, 502, 503, 504)
# About a minute, in which a server that has answered once may restart. Only what never reached it, or may be
# asked twice, is asked again.
RETRIES = urllib3.Retry(
    14,
    read=2,  # each may take as long as TIMEOUT
    redirect=False,
    status_forcelist=UNAVAILABLE,
    allowed_methods=("GET",),
    backoff_factor=0.5,
    backoff_max=5.0,
    raise_on_status=False,
    respect_retry_after_header=False,  # which may be an hour
)
LONGEST_MESSAGE = 600
# The server puts what it was doing before the cause.
CONTEXT = re.compile(r"^.*(?:\w+Error|Invalid input error|Already exist error): ", re.DOTALL)


class LostError(BackendError):
    """The answer was lost: the server may have done what it was asked to do, or not."""


@dataclass(frozen=True)
class Endpoint:
    """Where the server is.

    Attributes:
        url: empty until kfp.Client has found the cluster.
        origin: the option, variable or key that has the URL.
        namespace: of the Service, where it is reached through the Kubernetes API server.
        credentials: the variable that has them, if one does.
    """

    url: str
    origin: str
    namespace: str | None = None
    credentials: str | None = None

    def __str__(self) -> str:
        if self.namespace:
            return f"the Service {SERVICE} in the namespace {self.namespace}"
        return f"{self.url} ({self.origin})"

    @property
    def new_credentials(self) -> str:
        """What to do when the credentials are refused."""
        if self.namespace:
            return "Renew the credentials that KUBECONFIG has for the cluster."
        return f"Set {TOKEN} (or {COOKIE}, for a login page) to a valid one."


class Transport(RESTClientObject):  # type: ignore[misc]
    """Sends requests with time limits; whatever fails leaves it as an error of ours."""

    def __init__(self, settings: Any, endpoint: Endpoint, timeout: tuple[float, float]) -> None:
        super().__init__(settings)
        self._endpoint, self._timeout = endpoint, timeout

    def request(self, method: str, url: str, **options: Any) -> Any:
        """Send a request.

        Raises:
            BackendError: the server does not answer, or refuses; or a proxy answers in its place.
            NotFoundError: there is no such object.
            ConflictError: there is an object of this name already.
            LostError: the server may have done it.
        """
        options["_request_timeout"] = options.get("_request_timeout") or self._timeout
        try:
            answer = super().request(method, url, **options)
        except kfp_server_api.ApiException as error:
            failure = _refusal(error, self._endpoint)
            lost = method != "GET" and error.status in UNAVAILABLE
            raise (LostError(str(failure)) if lost else failure) from error
        except urllib3.exceptions.HTTPError as error:
            cause = getattr(error, "reason", None) or error
            never_sent = isinstance(
                cause, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError
            )
            failure = _unreachable(self._endpoint, str(cause.__cause__ or cause))
            raise (failure if never_sent else LostError(str(failure))) from error
        if "html" in (answer.getheader("content-type") or ""):
            raise _login_page(self._endpoint)
        return answer


def _refusal(error: kfp_server_api.ApiException, endpoint: Endpoint) -> ModelyardError:
    """Return the error for an answer that is no success."""
    status, where = error.status, f"Kubeflow Pipelines at {endpoint}"
    if not status:
        return _unreachable(endpoint, str(error.reason).splitlines()[-1])
    if 300 <= status < 400:
        return _login_page(endpoint, (error.headers or {}).get("location"))
    if status == 401:
        variable = endpoint.credentials
        told = f"does not accept {variable} (401): it has expired, or is for something else"
        return BackendError(
            f"{where} {told if variable else 'needs credentials (401)'}. {endpoint.new_credentials}"
        )
    message = _message(error.body)
    if status == 403:
        return BackendError(
            f"{where} does not allow it: {message or 'no reason is given'}. Ask its administrator for the "
            "permission, or check that the namespace (environment.runs.namespace) is yours."
        )
    if message is None:
        return not_the_api(f"answered with status {status}", endpoint)
    if status == 404:
        return NotFoundError(f"{where} did not find it: {message}.")
    if status == 409:
        return ConflictError(f"{where} has it already: {message}.")
    if status >= 500 and status != 501:
        return BackendError(f"{where} failed ({status}): {message}. Try again; its own log says more.")
    return BackendError(f"{where} refuses it ({status}): {message}.")


def _message(body: Any) -> str | None:
    """Return the message in the body of an error; None when it is not JSON of Kubeflow Pipelines."""
    try:
        found = json.loads(body)
        message = str(found.get("message") or found["error_message"]).strip()
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return CONTEXT.sub("", message)[:LONGEST_MESSAGE].rstrip(".")


def _login_page(endpoint: Endpoint, location: str | None = None) -> BackendError:
    """Return the error for a web page in place of an answer; the query of its URL may hold a secret."""
    parts = urlsplit(location or "")
    target = f" and redirects to {parts.scheme}://{parts.netloc}{parts.path}" if parts.netloc else ""
    reason = f"does not accept {endpoint.credentials}" if endpoint.credentials else "wants a login"
    return BackendError(
        f"{endpoint} answers with a web page{target}, not as the API of Kubeflow Pipelines. A proxy in front "
        f"of it {reason}, or the URL lacks a part, such as /pipeline at the end. {endpoint.new_credentials}"
    )


def not_the_api(what: str, endpoint: Endpoint) -> BackendError:
    """Return the error for another server at the URL."""
    return BackendError(
        f"The server at {endpoint} is not the API v2beta1 of Kubeflow Pipelines: it {what}. Correct the URL; "
        "Kubeflow Pipelines before 2.0 has no such API."
    )


def _unreachable(endpoint: Endpoint, why: str) -> BackendError:
    check = (
        f"Does it run (`kubectl get pods -n {endpoint.namespace}`)?"
        if endpoint.namespace
        else f"Is the URL right ({endpoint.origin}), does it run, and is it reachable from here?"
    )
    return BackendError(f"Kubeflow Pipelines at {endpoint} does not answer: {why}. {check}")
