"""The API server of Kubeflow Pipelines: where it is, and with which credentials.

    backend = connect(environment)
    backend.runs.run_service_get_run(run_id)

kfp.Client finds the server and sends the credentials; its generated clients do the rest. The URL is
`--endpoint`, else KF_PIPELINES_ENDPOINT, else `kfp.endpoint` of the environment; without one it is the
Service `ml-pipeline`, from outside the cluster through the Kubernetes API server that KUBECONFIG names.
Credentials come from environment variables only, so that they are in no file and on no command line.
"""

import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kfp import client as kfp_client

from modelyard.components.errors import BackendError, ClusterError, ConfigError, NotFoundError
from modelyard.components.kubernetes.cluster import connect as connect_cluster
from modelyard.pipelines.environments.environment import URL, Environment
from modelyard.pipelines.runners.kfp.transport import (
    COOKIE,
    RETRIES,
    TOKEN,
    Endpoint,
    Transport,
    not_the_api,
)

ENDPOINT = "KF_PIPELINES_ENDPOINT"
MOUNTED = "KF_PIPELINES_SA_TOKEN_PATH"
HEALTH_TIMEOUT, TIMEOUT = (5.0, 10.0), (5.0, 60.0)
PAGE_SIZE = 100


def find_endpoint(
    environment: Environment, given: str | None = None, environ: Mapping[str, str] = os.environ
) -> Endpoint:
    """Return where the server is.

    Args:
        environment: names it, or the namespace in which it is installed.
        given: the URL on the command line.
        environ: the environment variables.

    Raises:
        ConfigError: the environment is this machine, or the URL is malformed.
    """
    if environment.kind == "local":
        raise ConfigError(
            "The environment local is this machine, which has no Kubeflow Pipelines. Name a cluster with -e, "
            "such as kind; `modelyard run` runs here."
        )
    named = {
        "--endpoint": given,
        ENDPOINT: environ.get(ENDPOINT),
        "environment.kfp.endpoint": environment.kfp.endpoint,
    }
    for origin, url in named.items():
        if url and not re.match(URL, url):
            # a URL that may hold a password is not repeated
            shown = "a URL with a user or a query" if "@" in url or "?" in url else repr(url)
            raise ConfigError(
                f"{origin} is {shown}, which is not the URL of an API. Write it like http://127.0.0.1:8888 "
                f"or https://kubeflow.example.com/pipeline; a token belongs in {TOKEN}."
            )
        if url:
            return Endpoint(url.rstrip("/"), origin)
    namespace = environment.kfp.namespace
    if "KUBERNETES_SERVICE_HOST" in environ:
        host = kfp_client.Client._IN_CLUSTER_DNS_NAME.format(namespace)
        return Endpoint(f"http://{host}", "environment.kfp.namespace")
    return Endpoint("", "KUBECONFIG", namespace)


class Backend:
    """The API server of an environment, with the generated clients of its services.

    Attributes:
        endpoint: where it is.
        namespace: of the runs' pods.
        scope: the user's namespace, which requests name where several users share the server, else None.
        pipelines, uploads, experiments, runs, recurring_runs: the services.
    """

    def __init__(self, environment: Environment, endpoint: Endpoint, client: Any) -> None:
        settings, self._client = client._existing_config, client._run_api.api_client
        settings.host = settings.host.rstrip("/")
        if endpoint.namespace and settings.refresh_api_key_hook:
            _keep_host(settings)
        self.endpoint = replace(endpoint, url=settings.host)
        settings.retries = False
        self._client.rest_client = Transport(settings, self.endpoint, HEALTH_TIMEOUT)
        shared = self._multi_user(client._healthz_api)
        settings.retries = RETRIES
        self._client.rest_client = Transport(settings, self.endpoint, TIMEOUT)
        self.scope = environment.runs.namespace if shared else None
        self.namespace = self.scope or environment.kfp.namespace
        self.pipelines, self.uploads = client._pipelines_api, client._upload_api
        self.experiments = client._experiment_api
        self.runs, self.recurring_runs = client._run_api, client._recurring_run_api

    def scoped(self) -> dict[str, str]:
        """Return the arguments that a list needs where several users share the server."""
        return {"namespace": self.scope} if self.scope else {}

    def text(self, path: str) -> str:
        """Return the text at a path that has no generated client, such as a log."""
        self._client.call_api(path, "GET", auth_settings=["Bearer"])
        return str(self._client.last_response.data)

    def _multi_user(self, health: Any) -> bool:
        try:
            found = health.healthz_service_get_healthz()
        except NotFoundError as error:
            if self.endpoint.namespace:
                raise BackendError(
                    f"{error} Kubeflow Pipelines is not installed there, or the Service has no port called "
                    "http. Correct environment.kfp.namespace or KUBECONFIG, or give a URL: --endpoint or "
                    f"{ENDPOINT}."
                ) from error
            raise not_the_api("does not know /apis/v2beta1/healthz", self.endpoint) from error
        if found.multi_user is None:
            raise not_the_api("answers something else at /apis/v2beta1/healthz", self.endpoint)
        return bool(found.multi_user)


def connect(environment: Environment, endpoint: str | None = None) -> Backend:
    """Return the API server of an environment, after it has answered one request.

    Args:
        environment: the environment.
        endpoint: the URL on the command line.

    Raises:
        ConfigError: the environment is this machine, a URL is malformed, or a token needs one.
        BackendError: the server does not answer, or not as it should; the message says what to check.
    """
    found = find_endpoint(environment, endpoint)
    origin, credentials = _credentials(found, os.environ)
    namespace = environment.kfp.namespace
    if found.namespace:
        try:
            connect_cluster(namespace)  # says why there is none, where kfp.Client prints a line and goes on
        except ClusterError as error:
            raise BackendError(
                f"Kubeflow Pipelines has no URL here. {error} Or give a URL: --endpoint, {ENDPOINT} or "
                "environment.kfp.endpoint."
            ) from error
    authority = os.environ.get("SSL_CERT_FILE")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = _Client(host=found.url, namespace=namespace, ssl_ca_cert=authority, **credentials)
    return Backend(environment, replace(found, credentials=origin), client)


def pages(list_: Callable[..., Any], items: str, **arguments: Any) -> Iterator[Any]:
    """Yield the items of a list, page by page.

    Args:
        list_: such as `backend.runs.run_service_list_runs`.
        items: the answer's attribute, such as "runs".
        arguments: `filter`, `sort_by`, `page_size`, what `backend.scoped()` returns.
    """
    token = ""
    while True:
        page = list_(**{"page_size": PAGE_SIZE, **arguments}, page_token=token)
        yield from getattr(page, items) or ()
        if not (token := page.next_page_token or ""):
            return


def equals(key: str, value: str) -> str:
    """Return the filter of a list by one value."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": key, "string_value": value}]})


def find_experiment(backend: Backend, name: str) -> str | None:
    """Return the id of the experiment of a name, or None."""
    page = backend.experiments.experiment_service_list_experiments(
        page_size=1, filter=equals("display_name", name), **backend.scoped()
    )
    return str(page.experiments[0].experiment_id) if page.experiments else None


class _Client(kfp_client.Client):  # type: ignore[misc]
    """kfp.Client without ~/.config/kfp/context.json, which other programs write."""

    def _load_context_setting_or_default(self) -> None:
        # without a namespace the constructor asks for the health up to five times, and writes the file
        self._context_setting = {"namespace": "unused"}


def _keep_host(settings: Any) -> None:
    """Keep the URL when a token of KUBECONFIG is renewed, which sets it to that of the cluster."""
    url, renew = settings.host, settings.refresh_api_key_hook

    def hook(configuration: Any) -> None:
        renew(configuration)
        configuration.host, configuration.refresh_api_key_hook = url, hook

    settings.refresh_api_key_hook = hook


def _credentials(endpoint: Endpoint, environ: Mapping[str, str]) -> tuple[str | None, dict[str, Any]]:
    """Return the variable that the credentials came from, and how kfp.Client takes them."""
    cookie, path = environ.get(COOKIE), environ.get(MOUNTED, kfp_client.KF_PIPELINES_SA_TOKEN_PATH)
    cookies = {"cookies": cookie} if cookie else {}
    if environ.get(TOKEN):
        origin = TOKEN
    elif MOUNTED in environ or (not cookie and Path(path).is_file()):
        origin = MOUNTED
    else:
        return (COOKIE if cookie else None), cookies
    if endpoint.namespace:
        raise ConfigError(
            f"{origin} is set, and Kubeflow Pipelines has no URL here. It would be reached through the "
            "Kubernetes API server, which takes its own credentials only. Give a URL: --endpoint or "
            f"{ENDPOINT}."
        )
    if origin is TOKEN:
        return TOKEN, {**cookies, "existing_token": environ[TOKEN]}
    try:
        Path(path).read_bytes()
    except OSError as error:
        raise BackendError(
            f"The token for Kubeflow Pipelines in {path} cannot be read: {error.strerror or error}. Mount "
            "one there (a projected volume with the audience pipelines.kubeflow.org), or set "
            f"{MOUNTED} or {TOKEN}."
        ) from error
    return MOUNTED, {**cookies, "credentials": kfp_client.ServiceAccountTokenVolumeCredentials(path)}
