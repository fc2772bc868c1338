"""Connections to Kubeflow Pipelines. Errors have the URL and no secret."""

import json
from pathlib import Path

import pytest
import urllib3
from kfp import Client
from kubernetes.config import kube_config

from modelyard.components.errors import BackendError, ConfigError, ConflictError, NotFoundError
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners.kfp import client, runs
from modelyard.pipelines.runners.kfp.client import LostResponseError, connect, find_endpoint
from tests.integration.backend.conftest import FakeKfp
from tests.integration.backend.server import Fault
from tests.kubeconfig import use_cluster

PAGE = "<html><body>Log in</body></html>"
SECRET = "s3cr3t"  # noqa: S105
UNKNOWN_RUN = "8f3f1c9e-0000-4000-8000-000000000000"
HEALTH = "GET /apis/v2beta1/healthz"
IN_CLUSTER = "/api/v1/namespaces/kubeflow/services/ml-pipeline:http/proxy"


@pytest.fixture
def without_url(environment: Environment) -> Environment:
    return environment.model_copy(update={"kfp": environment.kfp.model_copy(update={"endpoint": None})})


@pytest.fixture
def cluster(fake_kfp: FakeKfp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kubeconfig whose API server proxies Kubeflow Pipelines."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    path = use_cluster(monkeypatch, tmp_path, fake_kfp.server.url, token=SECRET)
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))  # for kfp
    fake_kfp.server.prefix, fake_kfp.server.token = IN_CLUSTER, SECRET


def test_an_unreachable_server_is_an_error_with_its_url(
    environment: Environment, unreachable_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons = {unreachable_url: "Connection refused", "https://missing.invalid": r"\w+"}
    for url, reason in reasons.items():
        with pytest.raises(BackendError, match=rf"{url} \(--endpoint\) does not respond: {reason}"):
            connect(environment, url)
    monkeypatch.setenv("HTTP_PROXY", unreachable_url)
    with pytest.raises(BackendError, match=r"http://remote\.invalid .* through the proxy"):
        connect(environment, "http://remote.invalid")
    monkeypatch.setenv("SSL_CERT_FILE", "/missing")
    with pytest.raises(ConfigError, match="SSL_CERT_FILE"):
        connect(environment, "https://remote.invalid")


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8888", "ftp://x", "http://me:s3cr3t@host", "http://h?token=s3cr3t"]
)
def test_a_malformed_url_is_refused_without_its_secret(environment: Environment, url: str) -> None:
    with pytest.raises(ConfigError, match="--endpoint") as error:
        connect(environment, url)
    assert SECRET not in str(error.value)


def test_the_option_overrides_the_variable_and_the_environment(
    fake_kfp: FakeKfp, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert connect(environment).endpoint.origin == "environment.kfp.endpoint"
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(BackendError, match=r"127.0.0.1:1 \(KF_PIPELINES_ENDPOINT\)"):
        connect(environment)
    assert connect(environment, f"{fake_kfp.server.url}/").endpoint.url == fake_kfp.server.url


def test_without_a_url_the_service_of_the_cluster_is_used(
    without_url: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert find_endpoint(without_url).url == "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(BackendError, match=r"KUBECONFIG.* --endpoint, KF_PIPELINES_ENDPOINT or"):
        connect(without_url)
    with pytest.raises(ConfigError, match=r"environment\.kind is local"):
        connect(Environment(kind="local"))


@pytest.mark.usefixtures("cluster")
def test_runs_are_requested_through_the_api_server(fake_kfp: FakeKfp, without_url: Environment) -> None:
    backend = connect(without_url)
    assert backend.endpoint.url == f"{fake_kfp.server.url}{IN_CLUSTER}"
    assert runs.list_runs(backend, None, 5) == []
    with pytest.raises(NotFoundError, match="Service ml-pipeline in the namespace kubeflow"):
        runs.find_run(backend, "digits-1")
    fake_kfp.server.token = "renewed"  # noqa: S105
    with pytest.raises(BackendError, match=r"\(401\)\. .* KUBECONFIG"):
        runs.find_run(backend, "digits-1")


@pytest.mark.usefixtures("cluster")
def test_a_cluster_without_kfp_or_a_token_without_a_url_is_an_error(
    fake_kfp: FakeKfp, without_url: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_kfp.server.prefix = "/other"
    with pytest.raises(BackendError, match=r"environment\.kfp\.namespace"):
        connect(without_url)
    requests = list(fake_kfp.server.requests)
    monkeypatch.setenv("KF_PIPELINES_TOKEN", SECRET)
    with pytest.raises(ConfigError, match=r"KF_PIPELINES_TOKEN is set, .* --endpoint"):
        connect(without_url)
    assert fake_kfp.server.requests == requests


def test_connect_prints_nothing_and_ignores_the_saved_context(
    fake_kfp: FakeKfp,
    environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    saved = tmp_path / "context.json"
    text = json.dumps({"namespace": "another", "client_authentication_cookie": "another"})
    saved.write_text(text)
    monkeypatch.setattr(Client, "_LOCAL_KFP_CONTEXT", str(saved))
    fake_kfp.server.multi_user, fake_kfp.server.cookie = True, "cookie"
    with pytest.raises(BackendError, match="401"):
        connect(environment)
    monkeypatch.setenv("KF_PIPELINES_COOKIE", "cookie")
    backend = connect(environment)
    assert (backend.scope, backend.namespace) == ("modelyard-runs", "modelyard-runs")
    assert runs.list_runs(backend, None, 5) == []
    assert (saved.read_text(), fake_kfp.server.requests) == (text, [HEALTH, HEALTH, "GET /apis/v2beta1/runs"])
    assert [warning for warning in recwarn if issubclass(warning.category, FutureWarning)] == []
    assert capfd.readouterr() == ("", "")


def test_the_token_of_the_variable_is_sent_and_not_shown(
    fake_kfp: FakeKfp, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_kfp.server.token = SECRET
    with pytest.raises(BackendError, match=r"\(401\)\. Set KF_PIPELINES_TOKEN"):
        connect(environment)
    monkeypatch.setenv("KF_PIPELINES_TOKEN", SECRET)
    backend = connect(environment)
    fake_kfp.server.token = "another"  # noqa: S105
    for request in (backend.runs.run_service_list_runs, lambda: backend.get_text("/apis/v1beta1/runs/1")):
        with pytest.raises(BackendError, match=r"KF_PIPELINES_TOKEN \(401\)") as error:
            request()
        assert SECRET not in f"{error.value}{error.getrepr()}{vars(backend)}"


def test_a_renewed_token_file_is_read_again(
    fake_kfp: FakeKfp, environment: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mounted = tmp_path / "token"
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(mounted))
    with pytest.raises(ConfigError, match=rf"KF_PIPELINES_SA_TOKEN_PATH is {mounted}"):
        connect(environment)
    mounted.write_text("first\n")
    fake_kfp.server.token = "first"  # noqa: S105
    backend = connect(environment)
    mounted.write_text("second\n")
    fake_kfp.server.token = "second"  # noqa: S105
    backend.runs.run_service_list_runs()


@pytest.mark.parametrize(
    ("fault", "expected_message"),
    [
        (Fault(status=200, body=PAGE, content_type="text/html; charset=utf-8"), "a web page"),
        (Fault(status=302, location=f"https://login.example.com/auth?state={SECRET}"), "status 302"),
        (Fault(status=200, body='["hello"]'), "not the API v2beta1"),
        (Fault(status=200, body="hello", content_type="text/plain"), "not the API v2beta1"),
        (Fault(status=404, body='{"message": "Not Found"}'), "status 404"),
        (Fault(status=403, body=PAGE, content_type="text/html"), "status 403"),
        (Fault(status=502, body=PAGE, content_type="text/html"), "status 502"),
        (Fault(status=503, body='{"message": "no endpoints available"}'), "(503): no endpoints available."),
        (Fault(delay=1.0), "does not respond: timed out"),
        (Fault(cut="before"), "does not respond: "),
    ],
)
def test_an_invalid_first_response_is_an_error_with_the_url(
    fake_kfp: FakeKfp,
    environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    expected_message: str,
) -> None:
    monkeypatch.setattr(client, "HEALTH_TIMEOUT", (10.0, 0.4 if fault.delay else 60.0))
    fake_kfp.server.faults.append(fault)
    with pytest.raises(BackendError) as error:
        connect(environment)
    assert expected_message in str(error.value)
    assert fake_kfp.server.url in str(error.value)
    assert SECRET not in str(error.value)
    assert fake_kfp.server.requests == [HEALTH], "the request is repeated"


def test_only_read_requests_are_repeated_during_a_restart(
    fake_kfp: FakeKfp, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "RETRIES", client.RETRIES.new(total=3, backoff_factor=0.01))
    backend = connect(environment)
    fake_kfp.server.faults += [Fault(status=503, times=2), Fault(cut="before")]
    assert backend.runs.run_service_list_runs().runs == []
    fake_kfp.server.faults.append(Fault(status=503, body='{"message": "starting"}'))
    with pytest.raises(LostResponseError, match="starting"):
        backend.runs.run_service_terminate_run(UNKNOWN_RUN)  # a POST is not repeated
    fake_kfp.server.stop()
    with pytest.raises(BackendError, match="does not respond"):
        backend.runs.run_service_list_runs()
    fake_kfp.server.start()
    backend.runs.run_service_list_runs()


def test_requests_are_retried_for_about_a_minute() -> None:
    retries, seconds = client.RETRIES, 0.0
    with pytest.raises(urllib3.exceptions.MaxRetryError):
        while True:
            retries = retries.increment("GET", "/", error=OSError())
            seconds += retries.get_backoff_time()
    assert 40 < seconds < 90


def test_statuses_become_error_classes(fake_kfp: FakeKfp, environment: Environment) -> None:
    backend = connect(environment)
    for name in (UNKNOWN_RUN, "digits-1"):
        with pytest.raises(NotFoundError, match=rf"'{name}' at {fake_kfp.server.url}"):
            runs.find_run(backend, name)
    kinds = ((409, ConflictError), (403, BackendError), (400, BackendError), (500, BackendError))
    for status, kind in kinds:
        fake_kfp.server.faults.append(Fault(status=status, body=json.dumps({"message": "the reason."})))
        with pytest.raises(kind, match=r"the reason\."):
            backend.runs.run_service_list_runs()
