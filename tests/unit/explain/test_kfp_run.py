"""Explanations of recorded runs of Kubeflow Pipelines."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelyard.components.errors import ClusterError
from modelyard.components.explain import kfp_run
from modelyard.components.explain.exit_task import report_end
from modelyard.components.explain.kfp_run import explain
from modelyard.components.explain.spec import ExplainSpec
from modelyard.components.explain.workflow import Workflow, parse_pod
from modelyard.components.store.settings import Store

Run = Callable[..., Any]


@pytest.mark.parametrize("gone", [False, True], ids=["with pods", "pods deleted"])
@pytest.mark.parametrize(
    ("name", "step", "kind", "message"),
    [
        (
            "data-error",
            "fingerprint",
            "DataError",
            "Cannot read http://10.0.0.1:1/x.npz (data.source): the connection",
        ),
        ("exception", "preprocess", "ModelyardError", "pydantic_core._pydantic_core.ValidationError"),
        ("out-of-memory", "train", "OutOfMemoryError", ""),
        ("too-late", "fingerprint", "DeadlineError", "environment.steps.fingerprint.timeout"),
        ("deadline", "fingerprint", "DeadlineError", "exceeded workflow deadline"),
        ("never-scheduled", "fingerprint", "DeadlineError", "exceeded workflow deadline"),
    ],
)
def test_a_failed_run_has_the_step_and_the_reason(
    recorded: Run, name: str, step: str, kind: str, message: str, gone: bool
) -> None:
    found = explain("r1", "digits", recorded(name, gone))
    assert (found.state, found.step, found.kind) == ("failed", step, kind)
    assert found.text.startswith(f"The run r1 of digits failed in the step {step}: ")
    assert message in found.text


def test_a_timeout_names_the_configuration_key(recorded: Run) -> None:
    assert "environment.steps.fingerprint.timeout" in explain("r1", "digits", recorded("too-late")).text


def test_out_of_memory_names_the_limit_and_the_configuration_key(recorded: Run) -> None:
    text = explain("r1", "digits", recorded("out-of-memory")).text
    assert "its limit is 200 MiB" in text
    assert "environment.steps.train.memory" in text


def test_lines_of_the_launcher_are_not_quoted(recorded: Run) -> None:
    text = explain("r1", "digits", recorded("exception")).text
    assert "Extra inputs are not permitted" in text
    for noise in ("launcher_v2", "argo=true", "KFP Executor", "exit status"):
        assert noise not in text


@pytest.mark.parametrize(
    ("name", "message", "key"),
    [
        ("no-node", "it requests 64 cores and 512 MiB of memory", "environment.steps.fingerprint"),
        ("no-image", "modelyard/nope:1", "environment.images.fingerprint"),
    ],
)
def test_a_run_whose_pod_cannot_start_is_running_with_the_reason(
    recorded: Run, name: str, message: str, key: str
) -> None:
    found = explain("r1", "digits", recorded(name))
    assert (found.state, found.step) == ("running", "fingerprint")
    assert message in found.text
    assert key in found.text


@pytest.mark.parametrize(
    ("name", "message"),
    [("no-node", "Unschedulable: 0/1 nodes"), ("no-image", "modelyard/nope:1: not found")],
)
def test_the_workflow_alone_has_the_reason_after_the_end(recorded: Run, name: str, message: str) -> None:
    run = recorded(name, gone=True)
    node = run.found["workflow"]["status"]["nodes"]
    waiting = next(one for one in node.values() if one["phase"] == "Pending" and one["type"] == "Pod")
    waiting |= {
        "phase": "Error",
        "message": f"Pod failed before main container starts due to {waiting['message']}",
    }
    for one in node.values():
        one["phase"] = "Failed" if one["phase"] == "Running" else one["phase"]
    run.found["workflow"]["status"]["phase"] = "Failed"
    assert message in explain("r1", "digits", run).text


def test_a_terminated_run_is_cancelled(recorded: Run) -> None:
    found = explain("r1", "digits", recorded("cancelled"))
    assert (found.state, found.step) == ("cancelled", "train")


def test_a_succeeded_run_has_the_decision(recorded: Run) -> None:
    found = explain("r1", "digits", recorded("rejected"), decision="reject: accuracy 0.7 is too low")
    assert found.state == "succeeded"
    assert found.text == "The run r1 of digits succeeded: reject: accuracy 0.7 is too low"


def test_a_retried_attempt_is_not_a_failure(recorded: Run) -> None:
    run = recorded("lost-pod")
    assert [one.phase for one in run.workflow().pods() if one.step == "train" and not one.driver] == [
        "Error",
        "Succeeded",
    ]
    assert run.workflow().failed_pod() is None
    assert run.workflow().step_pod("train").phase == "Succeeded"


def test_a_lost_pod_is_not_a_failure_before_the_last_attempt(recorded: Run) -> None:
    run = recorded("lost-pod")
    nodes = run.found["workflow"]["status"]["nodes"]
    (second,) = [key for key, one in nodes.items() if one["displayName"] == "executor(1)"]
    del nodes[second]
    assert run.workflow().failed_pod().message == "pod deleted"
    (task,) = [one for one in nodes.values() if one["displayName"] == "train" and one["type"] == "Retry"]
    task["phase"] = "Running"
    assert run.workflow().failed_pod() is None


def test_the_exit_task_sees_a_failure_before_the_workflow_ends(recorded: Run) -> None:
    run = recorded("data-error")
    run.found["workflow"]["status"]["phase"] = "Running"
    assert explain("r1", "digits", run, succeeded=False).step == "fingerprint"


def test_pods_have_the_names_of_argo(recorded: Run) -> None:
    names = {one.pod: one for one in recorded("out-of-memory").workflow().pods()}
    pod = recorded("out-of-memory").found["pod"]
    assert names[pod["metadata"]["name"]].step == "train"


def test_the_step_is_parsed_from_the_annotation_of_a_pod(recorded: Run) -> None:
    pod = recorded("no-node").found["pod"]
    assert (parse_pod(pod).step, parse_pod(pod).driver) == ("fingerprint", False)
    pod["metadata"]["annotations"]["workflows.argoproj.io/node-name"] = "w.root.condition-1.train-driver"
    assert (parse_pod(pod).step, parse_pod(pod).driver) == ("train", True)


def test_nodes_without_attempt_numbers_are_parsed(recorded: Run) -> None:
    text = json.dumps(recorded("data-error").found["workflow"]).replace("(0)", "")
    assert Workflow(json.loads(text)).failed_pod().step == "fingerprint"


def test_a_workflow_without_nodes_is_running() -> None:
    class Empty:
        def workflow(self) -> Workflow:
            return Workflow({"metadata": {"name": ""}})

    assert explain("r1", None, Empty()).text == "The run r1 is running."  # type: ignore[arg-type]


class Cluster:
    """A cluster with one recorded run, whose exit task is the pod `own`."""

    namespace, nodes = "kubeflow", ()

    def __init__(self, found: dict[str, Any], label: str = kfp_run.WORKFLOW_LABEL) -> None:
        self.found, self.label = found, label

    def get(self, kind: str, name: str) -> Any:
        own = {"metadata": {"labels": {self.label: "the-workflow"}}}
        return own if name == "own" else self.found.get({"Pod": "pod", "Workflow": "workflow"}[kind])

    def list_events(self, _pod: Any) -> list[Any]:
        return []

    def stream_log(self, _pod: str, container: str) -> Any:
        assert container == "main"
        yield from self.found["log"]


@pytest.fixture
def exit_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Cluster], str]:
    """Return the paragraph of the exit task on a cluster."""
    (tmp_path / "namespace").write_text("kubeflow")
    monkeypatch.setattr(kfp_run, "NAMESPACE", tmp_path / "namespace")
    monkeypatch.setenv(kfp_run.POD_NAME, "own")
    monkeypatch.delenv("MODELYARD_RUN", raising=False)

    def run(cluster: Cluster) -> str:
        monkeypatch.setattr(kfp_run, "connect", lambda _namespace: cluster)
        spec = ExplainSpec(name="digits", store=Store(url=str(tmp_path)))
        report_end(spec, "r1", "FAILED", str(tmp_path / "explanation"))
        return (tmp_path / "explanation").read_text()

    return run


def test_the_exit_task_reads_the_workflow_of_its_pod(recorded: Run, exit_task: Any) -> None:
    text = exit_task(Cluster(recorded("out-of-memory").found))
    assert text.startswith("The run r1 of digits failed in the step train: ")
    assert "200 MiB" in text


def test_an_exit_task_without_a_workflow_reports_the_failure(exit_task: Any) -> None:
    for cluster in (Cluster({}), Cluster({}, label="another")):
        assert exit_task(cluster).startswith("The run r1 of digits failed: ")


def test_a_forbidden_log_is_empty(recorded: Run, exit_task: Any) -> None:
    class Forbidden(Cluster):
        def stream_log(self, _pod: str, _container: str) -> Any:
            raise ClusterError("forbidden")

    assert "in the step preprocess" in exit_task(Forbidden(recorded("exception").found))


def test_a_pod_without_a_node_or_an_image_is_stuck(recorded: Run) -> None:
    class Pending(Cluster):
        def list_objects(self, _kind: str, labels: str, fields: str) -> list[Any]:
            assert (labels, fields) == ("pipeline/runid=7", "status.phase=Pending")
            return [self.found["pod"]]

    found = kfp_run.find_stuck_pod(Pending(recorded("no-image").found), "7")  # type: ignore[arg-type]
    assert (found.step, found.wait_limit) == ("fingerprint", 0.0)
    assert "environment.images.fingerprint" in str(found.error)
    running = {**recorded("no-image").found["pod"], "status": {"phase": "Pending"}}
    assert kfp_run.find_stuck_pod(Pending({"pod": running}), "7") is None  # type: ignore[arg-type]
