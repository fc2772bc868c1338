"""Connects to the API server of Kubeflow Pipelines: finds its URL and credentials, and translates its errors.

    backend = connect(environment)
    backend.runs.run_service_get_run(run_id)

kfp.Client finds the server and sends the credentials; its generated clients send the requests. Every request
raises BackendError if the server refuses it or does not respond.

The URL is `--endpoint`, otherwise KF_PIPELINES_ENDPOINT, otherwise `kfp.endpoint` of the environment. Without
a URL, the Service `ml-pipeline` is used: inside the cluster directly, from outside through the
Kubernetes API server in KUBECONFIG. Credentials come from environment variables and from the token that
Kubernetes mounts into pods.
"""

import json
import os
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import kfp_server_api
import urllib3
from kfp import client as kfp_client
from kfp_server_api.rest import RESTClientObject

from modelyard.components import machine
from modelyard.components.errors import BackendError, ClusterError, ConfigError, ConflictError, NotFoundError
from modelyard.components.kubernetes.cluster import connect as connect_cluster
from modelyard.pipelines.environments.environment import URL, Environment

ENDPOINT, SERVICE = "KF_PIPELINES_ENDPOINT", "ml-pipeline"
TOKEN, COOKIE, TOKEN_PATH = "KF_PIPELINES_TOKEN", "KF_PIPELINES_COOKIE", "KF_PIPELINES_SA_TOKEN_PATH"
HEALTH_TIMEOUT, TIMEOUT = (5.0, 10.0), (5.0, 60.0)  # seconds to connect and to read
PAGE_SIZE = 100
UNAVAILABLE = (429, 502, 503, 504)
# For about a minute, in which a server may restart; only GET requests and requests that were not sent.
RETRIES = urllib3.Retry(
    14,
    read=2,  # each waits up to TIMEOUT
    redirect=False,
    status_forcelist=UNAVAILABLE,
    allowed_methods=("GET",),
    backoff_factor=0.5,
    backoff_max=5.0,
    raise_on_status=False,
    respect_retry_after_header=False,  # the header may ask for an hour
)
NOT_SENT = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
MAX_MESSAGE = 600
ERRORS_BY_STATUS = {404: NotFoundError, 409: ConflictError}
NOT_ALLOWED = " Ask its administrator for the permission, or check environment.runs.namespace."


class LostResponseError(BackendError):
    """The response was lost: the server may or may not have executed the request."""


@dataclass(frozen=True)
class Endpoint:
    """The URL of the server, and the option, variable or key that it comes from.

    `namespace` is set if the server is reached through the Kubernetes API server, and is the namespace of its
    Service; the URL is then empty until kfp.Client has found the cluster. `credentials` is the name of the
    environment variable with the credentials.
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
    def login_advice(self) -> str:
        """The remedy when the credentials are refused, without a full stop."""
        if self.namespace:
            return "Renew the credentials for the cluster in KUBECONFIG"
        return f"Set {TOKEN} (or {COOKIE}, for a login page) to a valid value"

    @property
    def advice(self) -> str:
        """The remedy when the server is missing or is not Kubeflow Pipelines."""
        if self.namespace:
            return (
                f"Check `kubectl get pods -n {self.namespace}` and environment.kfp.namespace, or set a URL: "
                f"--endpoint or {ENDPOINT}."
            )
        return (
            f"Check the network, the URL ({self.origin}) and its path, such as /pipeline, and that the "
            f"server is Kubeflow Pipelines 2.0 or later. {self.login_advice} if it requires a login."
        )


def find_endpoint(environment: Environment, option: str | None = None) -> Endpoint:
    """Return the endpoint of the server; `option` is the URL on the command line.

    Raises:
        ConfigError: the environment is this machine, or the URL is malformed.
    """
    if not environment.on_cluster:
        raise ConfigError(
            "environment.kind is local, without Kubeflow Pipelines. Select a cluster with -e, such as "
            "-e kind, or use `modelyard run`; docs/schedule.md shows how to start it with cron."
        )
    urls = {
        "--endpoint": option,
        ENDPOINT: os.environ.get(ENDPOINT),
        "environment.kfp.endpoint": environment.kfp.endpoint,
    }
    for origin, url in urls.items():
        if url and not re.match(URL, url):
            # a URL with a password must not be printed
            safe_url = "a URL with a user or a query" if "@" in url or "?" in url else repr(url)
            raise ConfigError(
                f"{origin} is {safe_url}, which is not the URL of an API. Use a URL such as "
                f"http://127.0.0.1:8888 or https://kubeflow.example.com/pipeline; set a token in {TOKEN}."
            )
        if url:
            return Endpoint(url.rstrip("/"), origin)
    namespace = environment.kfp.namespace
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        host = kfp_client.Client._IN_CLUSTER_DNS_NAME.format(namespace)
        return Endpoint(f"http://{host}", "environment.kfp.namespace")
    return Endpoint("", "KUBECONFIG", namespace)


class Transport(RESTClientObject):  # type: ignore[misc]
    """Sends requests with timeouts and raises failures as errors of modelyard."""

    def __init__(self, settings: Any, endpoint: Endpoint, timeout: tuple[float, float]) -> None:
        super().__init__(settings)
        self._endpoint, self._timeout = endpoint, timeout
        self._proxy = " through the proxy (`modelyard doctor` shows it)" if settings.proxy else ""

    def request(self, method: str, url: str, **options: Any) -> Any:
        """Send a request.

        Raises:
            BackendError: the server does not respond or refuses the request, or a proxy responds instead.
            NotFoundError: there is no such object.
            ConflictError: an object of this name exists.
            LostResponseError: the server may have executed the request.
        """
        options["_request_timeout"] = options.get("_request_timeout") or self._timeout
        try:
            response = super().request(method, url, **options)
        except kfp_server_api.ApiException as error:
            kind, text = self._refusal(error)
            if method != "GET" and error.status in UNAVAILABLE:
                kind = LostResponseError
            raise kind(text) from error
        except urllib3.exceptions.HTTPError as error:
            cause = getattr(error, "reason", None) or error
            kind = BackendError if isinstance(cause, NOT_SENT) else LostResponseError
            raise kind(self._unreachable(cause.__cause__ or cause)) from error
        if "html" in (response.getheader("content-type") or ""):
            raise wrong_server_error("a web page", self._endpoint)
        return response

    def _refusal(self, error: kfp_server_api.ApiException) -> tuple[type[Exception], str]:
        """Return the class and the message of the error for an unsuccessful response."""
        status, message = error.status, _parse_message(error.body)
        server = f"Kubeflow Pipelines at {self._endpoint}"
        if not status:  # TLS
            return BackendError, self._unreachable(str(error.reason).splitlines()[-1])
        if status == 401:
            credentials = self._endpoint.credentials or "a request without credentials"
            advice = self._endpoint.login_advice
            return BackendError, f"{server} does not accept {credentials} (401). {advice}."
        if message is None:
            return BackendError, str(wrong_server_error(f"status {status}", self._endpoint))
        kind, advice = ERRORS_BY_STATUS.get(status, BackendError), NOT_ALLOWED if status == 403 else ""
        return kind, f"{server} refuses the request ({status}): {message}.{advice}"

    def _unreachable(self, reason: object) -> str:
        reason = getattr(reason, "strerror", None) or reason
        server = f"Kubeflow Pipelines at {self._endpoint}"
        return f"{server} does not respond{self._proxy}: {reason}. {self._endpoint.advice}"


def _parse_message(body: Any) -> str | None:
    """Return the message of an error; None when the body is not from Kubeflow Pipelines."""
    try:
        document = json.loads(body)
        message = str(document.get("message") or document["error_message"]).strip()
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return message[:MAX_MESSAGE].rstrip(".")


def wrong_server_error(reply: str, endpoint: Endpoint) -> BackendError:
    """Return the error for another server at the URL, such as a login page."""
    return BackendError(
        f"{endpoint} returned {reply}, so it is not the API v2beta1 of Kubeflow Pipelines. {endpoint.advice}"
    )


class Backend:
    """The API server of an environment, with the generated clients of its services as attributes.

    `namespace` is the namespace of the pods of runs; `scope` is the namespace of the user in multi-user mode,
    otherwise None.
    """

    def __init__(self, environment: Environment, endpoint: Endpoint, client: Any) -> None:
        settings, self._client = client._existing_config, client._run_api.api_client
        settings.host = settings.host.rstrip("/")
        settings.proxy = machine.find_proxy(settings.host)
        if settings.host.startswith("https:"):
            settings.ssl_ca_cert = settings.ssl_ca_cert or machine.find_certificates()
        if endpoint.namespace and settings.refresh_api_key_hook:
            _keep_host(settings)
        self.endpoint = replace(endpoint, url=settings.host)
        settings.retries = False
        self._client.rest_client = Transport(settings, self.endpoint, HEALTH_TIMEOUT)
        multi_user = self._check_health(client._healthz_api)
        settings.retries = RETRIES
        self._client.rest_client = Transport(settings, self.endpoint, TIMEOUT)
        self.scope = environment.runs.namespace if multi_user else None
        self.namespace = self.scope or environment.kfp.namespace
        self.pipelines, self.uploads = client._pipelines_api, client._upload_api
        self.experiments = client._experiment_api
        self.runs, self.recurring_runs = client._run_api, client._recurring_run_api

    def scope_arguments(self) -> dict[str, str]:
        """Return the extra arguments of list requests in multi-user mode."""
        return {"namespace": self.scope} if self.scope else {}

    def get_text(self, path: str) -> str:
        """Return the text at a path without a generated client, such as a log."""
        self._client.call_api(path, "GET", auth_settings=["Bearer"])
        return str(self._client.last_response.data)

    def _check_health(self, client: Any) -> bool:
        """Request the health of the server, and return whether it is in multi-user mode."""
        try:
            health = client.healthz_service_get_healthz()
        except NotFoundError as error:
            raise wrong_server_error("status 404 for /apis/v2beta1/healthz", self.endpoint) from error
        if health.multi_user is None:
            raise wrong_server_error("an unknown document for /apis/v2beta1/healthz", self.endpoint)
        return bool(health.multi_user)


def connect(environment: Environment, option: str | None = None) -> Backend:
    """Return the API server of an environment after a health check; `option` is the URL on the command line.

    Raises:
        ConfigError: the environment is this machine, a URL is malformed, or a token needs a URL or
            cannot be read.
        BackendError: the server does not respond, or is not Kubeflow Pipelines.
    """
    endpoint = find_endpoint(environment, option)
    origin, credentials = _find_credentials(endpoint)
    namespace = environment.kfp.namespace
    if endpoint.namespace:
        try:
            connect_cluster(namespace)  # raises the reason, which kfp.Client only prints
        except ClusterError as error:
            raise BackendError(
                f"Kubeflow Pipelines has no URL and is not reachable through the cluster. {error} Or set "
                f"--endpoint, {ENDPOINT} or environment.kfp.endpoint."
            ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = _Client(host=endpoint.url, namespace=namespace, **credentials)
    return Backend(environment, replace(endpoint, credentials=origin), client)


def list_items(request: Callable[..., Any], attribute: str, **arguments: Any) -> Iterator[Any]:
    """Yield the items of a list request, such as `backend.runs.run_service_list_runs`, page by page."""
    token = ""
    while True:
        page = request(**{"page_size": PAGE_SIZE, **arguments}, page_token=token)
        yield from getattr(page, attribute) or ()
        if not (token := page.next_page_token or ""):
            return


def equals_filter(key: str, value: str) -> str:
    """Return a list filter: `key` equals `value`."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": key, "string_value": value}]})


def find_experiment(backend: Backend, name: str) -> Any | None:
    """Return the experiment with a name, or None."""
    page = backend.experiments.experiment_service_list_experiments(
        page_size=1, filter=equals_filter("display_name", name), **backend.scope_arguments()
    )
    return page.experiments[0] if page.experiments else None


class _Client(kfp_client.Client):  # type: ignore[misc]
    """kfp.Client that ignores ~/.config/kfp/context.json, which other programs write."""

    def _load_context_setting_or_default(self) -> None:
        # without a namespace, the constructor requests the health up to five times and writes the file
        self._context_setting = {"namespace": "unused"}


def _keep_host(settings: Any) -> None:
    """Keep the URL when kfp.Client renews a token of KUBECONFIG and resets the URL to that of the cluster."""
    url, renew_token = settings.host, settings.refresh_api_key_hook

    def hook(configuration: Any) -> None:
        renew_token(configuration)
        configuration.host, configuration.refresh_api_key_hook = url, hook

    settings.refresh_api_key_hook = hook


def _find_credentials(endpoint: Endpoint) -> tuple[str | None, dict[str, Any]]:
    """Return the variable of the credentials, and the arguments of kfp.Client."""
    cookie, path = os.environ.get(COOKIE), os.environ.get(TOKEN_PATH, kfp_client.KF_PIPELINES_SA_TOKEN_PATH)
    arguments: dict[str, Any] = {"cookies": cookie} if cookie else {}
    if os.environ.get(TOKEN):
        origin, arguments["existing_token"] = TOKEN, os.environ[TOKEN]
    elif TOKEN_PATH in os.environ or (not cookie and Path(path).is_file()):
        origin, arguments["credentials"] = TOKEN_PATH, kfp_client.ServiceAccountTokenVolumeCredentials(path)
    else:
        return (COOKIE if cookie else None), arguments
    if endpoint.namespace:
        raise ConfigError(
            f"{origin} is set, but Kubeflow Pipelines has no URL: the Kubernetes API server does not "
            f"forward this credential. Set the URL with --endpoint or {ENDPOINT}."
        )
    if origin is TOKEN_PATH and not os.access(path, os.R_OK):
        raise ConfigError(
            f"{TOKEN_PATH} is {path}, which cannot be read. Mount a token there (a projected volume with the "
            f"audience pipelines.kubeflow.org), or set {TOKEN}."
        )
    return origin, arguments
