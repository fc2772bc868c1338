"""The services of Kubeflow Pipelines' API, as its SDK has them, with every failure made a sentence.

    backend = connect(environment)
    backend.runs.run_service_get_run(run_id)

It uses the generated client below kfp.Client, which prints nothing and starts in a quarter of the time. A
server that has answered once is given time to come back: what may be asked twice is asked again meanwhile.
"""

import re
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import kfp_server_api
import urllib3
from kfp_server_api.rest import RESTClientObject

from modelyard.components.errors import BackendError, ModelyardError, NotFoundError
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners.kfp import refusals
from modelyard.pipelines.runners.kfp.endpoint import Credentials, Endpoint, find_credentials, find_endpoint

TIMEOUT = (5.0, 60.0)
PATIENCE = 60.0
PAUSE = 0.5
AWAY = (429, 502, 503, 504)


class LostError(BackendError):
    """The answer did not come: what was asked may have been done, or not."""


class Backend:
    """The API server of an environment.

    Attributes:
        endpoint: where it is.
        namespace: of the runs' pods.
        scope: of what is asked for: the user's namespace where several users share the server, else None.
    """

    def __init__(self, environment: Environment, endpoint: Endpoint, credentials: Credentials) -> None:
        self.endpoint = endpoint
        settings = kfp_server_api.Configuration(host=endpoint.url)
        settings.retries = False
        self._client = kfp_server_api.ApiClient(settings, cookie=credentials.cookie)
        self._client.rest_client = _Transport(settings, endpoint, credentials)
        shared = self._healthy().multi_user
        self.scope = environment.runs.namespace if shared else None
        self.namespace = self.scope or environment.kfp.namespace

    @cached_property
    def pipelines(self) -> Any:
        """Pipelines and their versions."""
        return kfp_server_api.PipelineServiceApi(self._client)

    @cached_property
    def uploads(self) -> Any:
        """Uploads of packages."""
        return kfp_server_api.PipelineUploadServiceApi(self._client)

    @cached_property
    def experiments(self) -> Any:
        """Experiments, which hold runs together."""
        return kfp_server_api.ExperimentServiceApi(self._client)

    @cached_property
    def runs(self) -> Any:
        """Runs."""
        return kfp_server_api.RunServiceApi(self._client)

    @cached_property
    def recurring_runs(self) -> Any:
        """Recurring runs."""
        return kfp_server_api.RecurringRunServiceApi(self._client)

    def scoped(self) -> dict[str, str]:
        """Return what to add to a question about whole lists, where several users share the server."""
        return {"namespace": self.scope} if self.scope else {}

    def text(self, path: str) -> str:
        """Return the text at a path of which the description does not know, such as a log."""
        self._client.call_api(path, "GET")
        return str(self._client.last_response.data)

    def _healthy(self) -> Any:
        try:
            found = kfp_server_api.HealthzServiceApi(self._client).healthz_service_get_healthz()
        except NotFoundError as error:
            raise refusals.stranger("does not know /apis/v2beta1/healthz", self.endpoint) from error
        if found.multi_user is None:
            raise refusals.stranger("says something else at /apis/v2beta1/healthz", self.endpoint)
        return found


def connect(environment: Environment, endpoint: str | None = None) -> Backend:
    """Return the API server of an environment; it has answered.

    Args:
        environment: the environment.
        endpoint: the address of the command line.

    Raises:
        ConfigError: the environment is this machine, or an address is none.
        BackendError: it does not answer, or not as it should; the message says what to check.
    """
    return Backend(environment, find_endpoint(environment, endpoint), find_credentials())


class _Transport(RESTClientObject):  # type: ignore[misc]
    """What sends requests, with time limits and patience; each failure leaves it as one of our errors."""

    def __init__(self, settings: Any, endpoint: Endpoint, credentials: Credentials) -> None:
        super().__init__(settings)
        self._endpoint, self._credentials = endpoint, credentials
        self._answered = False
        if endpoint.tunnel:
            from modelyard.pipelines.runners.kfp.tunnel import tunnelled

            self.pool_manager = tunnelled(endpoint.tunnel)

    def request(self, method: str, url: str, **options: Any) -> Any:
        """Ask, again while the server is away.

        Raises:
            BackendError: it does not answer, or refuses; or a proxy answers in its place.
            NotFoundError: it has no such thing.
            ConflictError: it has a thing of this name already.
            LostError: it did not say whether it did it.
        """
        options["_request_timeout"] = options.get("_request_timeout") or TIMEOUT
        options["headers"] = {**(options.get("headers") or {}), **self._authorization()}
        deadline = time.monotonic() + (PATIENCE if self._answered else 0.0)
        while True:
            try:
                return self._once(method, url, options)
            except _AwayError as away:
                if time.monotonic() >= deadline or (away.asked and method != "GET"):
                    raise away.error from away.__cause__
            time.sleep(PAUSE)

    def _once(self, method: str, url: str, options: dict[str, Any]) -> Any:
        try:
            # the SDK changes the headers that it is given
            answer = super().request(method, url, **{**options, "headers": dict(options["headers"])})
        except kfp_server_api.ApiException as error:
            raise self._plainly(error) from error
        except urllib3.exceptions.HTTPError as error:
            never_sent = isinstance(
                error, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError
            )
            plainly = refusals.unreachable(self._endpoint, _reason(error))
            raise _AwayError(
                plainly if never_sent else LostError(str(plainly)), asked=not never_sent
            ) from error
        self._answered = True
        if "html" in (answer.getheader("content-type") or ""):
            raise refusals.login_page(self._endpoint, self._credentials)
        return answer

    def _plainly(self, error: kfp_server_api.ApiException) -> Exception:
        body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else str(error.body or "")
        if not error.status:
            return refusals.unreachable(self._endpoint, str(error.reason).splitlines()[-1])
        if 300 <= error.status < 400:
            return refusals.login_page(
                self._endpoint, self._credentials, (error.headers or {}).get("location")
            )
        refusal = refusals.refused(error.status, body, self._endpoint, self._credentials)
        return _AwayError(refusal, asked=False) if error.status in AWAY else refusal

    def _authorization(self) -> dict[str, str]:
        token = self._credentials.token
        if path := self._credentials.path:
            try:
                token = Path(path).read_text(encoding="utf-8").strip()  # anew: Kubernetes renews it
            except OSError as error:
                raise refusals.no_token(self._credentials, error.strerror or str(error)) from error
        return {"Authorization": f"Bearer {token}"} if token else {}


class _AwayError(Exception):
    """The server is away for now; `asked` says whether the request may have reached it."""

    def __init__(self, error: ModelyardError, *, asked: bool) -> None:
        super().__init__(str(error))
        self.error, self.asked = error, asked


def _reason(error: urllib3.exceptions.HTTPError) -> str:
    """Return what went wrong with a connection, without the objects that urllib3 puts before it."""
    return re.sub(
        r"^\w+\([^)]*\): |^.*(?:>|\)): |Failed to establish a new connection: ", "", str(error)
    ).rstrip(".")
