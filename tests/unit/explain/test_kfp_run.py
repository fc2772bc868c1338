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


@pytest.mark.parametrize("pods_deleted", [False, True], ids=["with pods", "pods deleted"])
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
    recorded: Run, name: str, step: str, kind: str, message: str, pods_deleted: bool
) -> None:
    explanation = explain("r1", "digits", recorded(name, pods_deleted))
    assert (explanation.state, explanation.step, explanation.kind) == ("failed", step, kind)
    assert explanation.text.startswith(f"The run r1 of digits failed in the step {step}: ")
    assert message in explanation.text


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
    explanation = explain("r1", "digits", recorded(name))
    assert (explanation.state, explanation.step) == ("running", "fingerprint")
    assert message in explanation.text
    assert key in explanation.text


@pytest.mark.parametrize(
    ("name", "message"),
    [("no-node", "Unschedulable: 0/1 nodes"), ("no-image", "modelyard/nope:1: not found")],
)
def test_the_reason_is_in_the_workflow_after_its_pods_were_deleted(
    recorded: Run, name: str, message: str
) -> None:
    run = recorded(name, pods_deleted=True)
    nodes = run.records["workflow"]["status"]["nodes"]
    pending = next(node for node in nodes.values() if node["phase"] == "Pending" and node["type"] == "Pod")
    pending |= {
        "phase": "Error",
        "message": f"Pod failed before main container starts due to {pending['message']}",
    }
    for node in nodes.values():
        node["phase"] = "Failed" if node["phase"] == "Running" else node["phase"]
    run.records["workflow"]["status"]["phase"] = "Failed"
    assert message in explain("r1", "digits", run).text


def test_a_terminated_run_is_cancelled(recorded: Run) -> None:
    explanation = explain("r1", "digits", recorded("cancelled"))
    assert (explanation.state, explanation.step) == ("cancelled", "train")


def test_a_succeeded_run_has_the_decision(recorded: Run) -> None:
    explanation = explain("r1", "digits", recorded("rejected"), decision="reject, because it is bad")
    assert explanation.state == "succeeded"
    assert explanation.text == "The run r1 of digits succeeded: reject, because it is bad."


def test_a_retried_attempt_is_not_a_failure(recorded: Run) -> None:
    run = recorded("lost-pod")
    assert [pod.phase for pod in run.workflow().pods() if pod.step == "train" and not pod.driver] == [
        "Error",
        "Succeeded",
    ]
    assert run.workflow().failed_pod() is None
    assert run.workflow().step_pod("train").phase == "Succeeded"


def test_a_lost_pod_is_not_a_failure_before_the_last_attempt(recorded: Run) -> None:
    run = recorded("lost-pod")
    nodes = run.records["workflow"]["status"]["nodes"]
    (second,) = [key for key, node in nodes.items() if node["displayName"] == "executor(1)"]
    del nodes[second]
    assert run.workflow().failed_pod().message == "pod deleted"
    (task,) = [node for node in nodes.values() if node["displayName"] == "train" and node["type"] == "Retry"]
    task["phase"] = "Running"
    assert run.workflow().failed_pod() is None


def test_the_exit_task_explains_a_failure_before_the_workflow_ends(recorded: Run) -> None:
    run = recorded("data-error")
    run.records["workflow"]["status"]["phase"] = "Running"
    assert explain("r1", "digits", run, succeeded=False).step == "fingerprint"


def test_pods_have_the_names_of_argo(recorded: Run) -> None:
    names = {node.pod: node for node in recorded("out-of-memory").workflow().pods()}
    pod = recorded("out-of-memory").records["pod"]
    assert names[pod["metadata"]["name"]].step == "train"


def test_the_step_is_parsed_from_the_annotation_of_a_pod(recorded: Run) -> None:
    pod = recorded("no-node").records["pod"]
    assert (parse_pod(pod).step, parse_pod(pod).driver) == ("fingerprint", False)
    pod["metadata"]["annotations"]["workflows.argoproj.io/node-name"] = "w.root.condition-1.train-driver"
    assert (parse_pod(pod).step, parse_pod(pod).driver) == ("train", True)


def test_nodes_without_attempt_numbers_are_parsed(recorded: Run) -> None:
    text = json.dumps(recorded("data-error").records["workflow"]).replace("(0)", "")
    assert Workflow(json.loads(text)).failed_pod().step == "fingerprint"


def test_a_workflow_without_nodes_is_running() -> None:
    class Empty:
        def workflow(self) -> Workflow:
            return Workflow({"metadata": {"name": ""}})

    assert explain("r1", None, Empty()).text == "The run r1 is running."  # type: ignore[arg-type]


class Cluster:
    """A cluster with one recorded run, whose exit task runs in the pod `exit-task`."""

    namespace, nodes = "kubeflow", ()

    def __init__(self, records: dict[str, Any], label: str = kfp_run.WORKFLOW_LABEL) -> None:
        self.records, self.label = records, label

    def get(self, kind: str, name: str) -> Any:
        pod = {"metadata": {"labels": {self.label: "the-workflow"}}}
        return pod if name == "exit-task" else self.records.get({"Pod": "pod", "Workflow": "workflow"}[kind])

    def list_events(self, _pod: Any) -> list[Any]:
        return []

    def stream_log(self, _pod: str, container: str) -> Any:
        assert container == "main"
        yield from self.records["log"]


@pytest.fixture
def exit_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Cluster], str]:
    """Return a function that runs the exit task on a cluster and returns its text."""
    (tmp_path / "namespace").write_text("kubeflow")
    monkeypatch.setattr(kfp_run, "NAMESPACE", tmp_path / "namespace")
    monkeypatch.setenv(kfp_run.POD_NAME, "exit-task")
    monkeypatch.delenv("MODELYARD_RUN", raising=False)

    def run(cluster: Cluster) -> str:
        monkeypatch.setattr(kfp_run, "connect", lambda _namespace: cluster)
        spec = ExplainSpec(name="digits", store=Store(url=str(tmp_path)))
        report_end(spec, "r1", "FAILED", str(tmp_path / "explanation"))
        return (tmp_path / "explanation").read_text()

    return run


def test_the_exit_task_reads_the_workflow_of_its_pod(recorded: Run, exit_task: Any) -> None:
    text = exit_task(Cluster(recorded("out-of-memory").records))
    assert text.startswith("The run r1 of digits failed in the step train: ")
    assert "200 MiB" in text


def test_an_exit_task_without_a_workflow_reports_the_failure(exit_task: Any) -> None:
    for cluster in (Cluster({}), Cluster({}, label="another")):
        assert exit_task(cluster).startswith("The run r1 of digits failed: ")


def test_a_forbidden_log_is_empty(recorded: Run, exit_task: Any) -> None:
    class Forbidden(Cluster):
        def stream_log(self, _pod: str, _container: str) -> Any:
            raise ClusterError("forbidden")

    assert "in the step preprocess" in exit_task(Forbidden(recorded("exception").records))


def test_a_pod_without_a_node_or_an_image_is_stuck(recorded: Run) -> None:
    class Pending(Cluster):
        def list_objects(self, _kind: str, labels: str, fields: str) -> list[Any]:
            assert (labels, fields) == ("pipeline/runid=7", "status.phase=Pending")
            return [self.records["pod"]]

    stuck_pod = kfp_run.find_stuck_pod(Pending(recorded("no-image").records), "7")  # type: ignore[arg-type]
    assert (stuck_pod.step, stuck_pod.wait_limit) == ("fingerprint", 0.0)
    assert "environment.images.fingerprint" in str(stuck_pod.error)
    running = {**recorded("no-image").records["pod"], "status": {"phase": "Pending"}}
    assert kfp_run.find_stuck_pod(Pending({"pod": running}), "7") is None  # type: ignore[arg-type]
