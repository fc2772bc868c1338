"""What keeps one from Kubeflow Pipelines: each is a sentence that says what to do, and no secret is in it."""

import json
import socket
from pathlib import Path

import pytest

from modelyard.components.errors import BackendError, ConfigError, ConflictError, NotFoundError
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners.kfp import client, records
from modelyard.pipelines.runners.kfp.client import connect
from modelyard.pipelines.runners.kfp.endpoint import find_endpoint
from tests.integration.backend.conftest import Site
from tests.integration.backend.server import Fault

PAGE = "<html><body>Log in</body></html>"
SECRET = "s3cr3t"  # noqa: S105
GONE = "8f3f1c9e-0000-4000-8000-000000000000"


def test_nothing_listens(environment: Environment) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(BackendError) as caught:
        connect(environment, url)
    assert str(caught.value) == (
        f"Kubeflow Pipelines at {url} (--endpoint) does not answer: [Errno 111] Connection refused. Is the "
        "address right (--endpoint), does it run, and is it reached from here?"
    )


def test_name_that_is_unknown(environment: Environment) -> None:
    with pytest.raises(BackendError, match=r"https://nowhere.invalid .* does not answer: Failed to resolve"):
        connect(environment, "https://nowhere.invalid")


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8888", "ftp://x", "http://me:s3cr3t@host", "http://h?token=s3cr3t"]
)
def test_no_address(environment: Environment, url: str) -> None:
    with pytest.raises(ConfigError, match=r"--endpoint is .* no address of an API\. Write it as") as caught:
        connect(environment, url)
    assert SECRET not in str(caught.value)


def test_which_address(site: Site, environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(BackendError, match=r"127.0.0.1:1 \(KF_PIPELINES_ENDPOINT\)"):
        connect(environment)
    assert connect(environment, f"{site.server.url}/").endpoint.url == site.server.url


def test_inside_and_outside_the_cluster(environment: Environment) -> None:
    lost = environment.model_copy(update={"kfp": environment.kfp.model_copy(update={"endpoint": None})})
    inside = find_endpoint(lost, None, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    assert (inside.url, inside.tunnel) == ("http://ml-pipeline.kubeflow.svc:8888", None)
    assert find_endpoint(lost, None, {}).tunnel == "kubeflow"


def test_no_cluster(environment: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    lost = environment.model_copy(update={"kfp": environment.kfp.model_copy(update={"endpoint": None})})
    with pytest.raises(BackendError, match=r"no address here\. There is no cluster .* --endpoint, KF_PIPEL"):
        connect(lost)


def test_this_machine() -> None:
    with pytest.raises(ConfigError, match="local is this machine, which has no Kubeflow Pipelines"):
        connect(Environment(kind="local"))


def test_token_is_needed(site: Site, environment: Environment) -> None:
    site.server.token = SECRET
    with pytest.raises(BackendError, match=r"wants to know who asks \(401\)\. Set KF_PIPELINES_TOKEN"):
        connect(environment)


def test_token(site: Site, environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    site.server.token = SECRET
    monkeypatch.setenv("KF_PIPELINES_TOKEN", SECRET)
    backend = connect(environment)
    site.server.token = "another"  # noqa: S105
    with pytest.raises(BackendError, match="does not accept what KF_PIPELINES_TOKEN holds") as caught:
        backend.runs.run_service_list_runs()
    assert SECRET not in f"{caught.value}{caught.getrepr()}{vars(backend)}"


def test_token_that_is_renewed(
    site: Site, environment: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mounted = tmp_path / "token"
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(mounted))
    with pytest.raises(BackendError, match=r"The token .* cannot be read: No such file"):
        connect(environment)
    for token in ("first", "second"):
        mounted.write_text(f"{token}\n")
        site.server.token = token
        connect(environment).runs.run_service_list_runs()


def test_cookie(site: Site, environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    site.server.cookie = f"session={SECRET}"
    with pytest.raises(BackendError, match=r"401"):
        connect(environment)
    monkeypatch.setenv("KF_PIPELINES_COOKIE", f"session={SECRET}")
    connect(environment)


def test_login_page(site: Site, environment: Environment) -> None:
    site.server.faults.append(Fault(status=200, body=PAGE, content_type="text/html; charset=utf-8"))
    with pytest.raises(
        BackendError, match=r"answers with a web page, .* wants a login, or the address lacks"
    ):
        connect(environment)


def test_login_elsewhere(site: Site, environment: Environment) -> None:
    place = f"https://login.example.com/auth?state={SECRET}"
    site.server.faults.append(Fault(status=302, location=place))
    with pytest.raises(BackendError, match=r"sends to https://login.example.com/auth, not as") as caught:
        connect(environment)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("status", [403, 404, 502])
def test_page_of_a_proxy(site: Site, environment: Environment, status: int) -> None:
    site.server.faults.append(Fault(status=status, body=PAGE, content_type="text/html"))
    with pytest.raises(
        BackendError, match=r"KF_PIPELINES_TOKEN|is not Kubeflow Pipelines' API|does not allow"
    ):
        connect(environment)


def test_older_backend(site: Site, environment: Environment) -> None:
    site.server.old = True
    with pytest.raises(BackendError, match=r"is not Kubeflow Pipelines' API v2beta1: .* before 2\.0"):
        connect(environment)


def test_something_else_in_json(site: Site, environment: Environment) -> None:
    site.server.faults.append(Fault(status=200, body='["hello"]'))
    with pytest.raises(BackendError, match=r"is not Kubeflow Pipelines' API"):
        connect(environment)


def test_answer_that_is_no_json(site: Site, environment: Environment) -> None:
    site.server.faults.append(Fault(status=200, body="hello", content_type="text/plain"))
    with pytest.raises(BackendError, match=r"is not Kubeflow Pipelines' API"):
        connect(environment)


def test_slow_answer(site: Site, environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT", (1.0, 0.2))
    site.server.faults.append(Fault(delay=1.0))
    with pytest.raises(BackendError, match=r"does not answer: .*timed? ?out"):
        connect(environment)


def test_permission(site: Site, environment: Environment) -> None:
    backend = connect(environment)
    said = {"code": 7, "message": "User 'ann' is not authorized to list runs in namespace 'team'"}
    site.server.faults.append(Fault(status=403, body=json.dumps(said)))
    with pytest.raises(BackendError, match=r"does not allow it: User 'ann' is not authorized"):
        backend.runs.run_service_list_runs()


def test_restart(site: Site, environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PAUSE", 0.05)
    backend = connect(environment)
    site.server.faults += [Fault(status=503, times=2), Fault(cut="before")]
    assert backend.runs.run_service_list_runs().runs == []
    site.server.stop()
    monkeypatch.setattr(client, "PATIENCE", 0.2)
    with pytest.raises(BackendError, match="does not answer"):
        backend.runs.run_service_list_runs()
    site.server.start()
    backend.runs.run_service_list_runs()


def test_kinds_of_refusal(site: Site, environment: Environment) -> None:
    backend = connect(environment)
    with pytest.raises(NotFoundError, match=rf"There is no run '{GONE}' at .* may have been deleted"):
        records.find(backend, GONE)
    with pytest.raises(NotFoundError, match="There is no run 'digits-1'"):
        records.find(backend, "digits-1")
    chain = "Failed to create a new run: invalid inputs: Invalid input error: parameter n is unknown"
    site.server.faults.append(Fault(status=400, body=json.dumps({"code": 3, "message": chain})))
    with pytest.raises(BackendError, match=r"refuses it \(400\): parameter n is unknown\."):
        backend.runs.run_service_list_runs()
    for status, kind in ((409, ConflictError), (400, BackendError), (500, BackendError)):
        site.server.faults.append(Fault(status=status, body=json.dumps({"message": "because of this."})))
        with pytest.raises(kind, match=r"because of this\."):
            backend.runs.run_service_list_runs()


def test_shared_server(site: Site, environment: Environment) -> None:
    site.server.multi_user = True
    backend = connect(environment)
    assert (backend.scope, backend.namespace) == ("modelyard-runs", "modelyard-runs")
    assert records.latest(backend, None, 5) == []
