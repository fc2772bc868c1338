"""A pod whose log is interrupted while it runs."""

import pytest

from modelyard.components.errors import ClusterError
from modelyard.pipelines.runners.pods import pod as pods

META = {"name": "r1-train", "labels": {"modelyard.dev/step": "train"}}
POD = {"apiVersion": "v1", "kind": "Pod", "metadata": META}


class ClusterWithInterruptedLog:
    """Each container prints a line, its log is interrupted, and it prints another line and ends."""

    namespace, nodes = "runs", ()

    def __init__(self) -> None:
        self.ended = {"step": False, "put": False}
        self.exists = True

    def apply(self, pod, _manager):
        return pod

    def get(self, _kind, _name):
        states = [
            {
                "name": name,
                "state": {"terminated": {"exitCode": 0, "message": name}} if ended else {"running": {}},
            }
            for name, ended in self.ended.items()
        ]
        status = {"phase": "Running", "containerStatuses": states}
        return {**POD, "status": status} if self.exists else None

    def stream_log(self, _pod, container, skip, ended):  # noqa: ARG002
        lines = [f"{container} started"]
        if self.ended[container]:
            lines.append(f"{container} ended")
        self.ended[container] = True
        yield from lines[skip:]

    def read_memory_usage(self, _pod, _container):
        raise ClusterError("forbidden")

    def delete(self, _kind, _observed):
        assert all(self.ended.values()), "the pod was removed while it ran"
        self.exists = False


def test_an_interrupted_log_is_read_to_its_end(capsys, monkeypatch):
    monkeypatch.setattr(pods, "PAUSE", 0.0)
    assert pods.run_pod(ClusterWithInterruptedLog(), POD, start_timeout=1) == "step"
    assert capsys.readouterr().out.splitlines() == ["step started", "step ended", "put started", "put ended"]


def test_a_pod_deleted_before_its_step_is_a_retryable_failure(monkeypatch):
    class Deleted(ClusterWithInterruptedLog):
        def get(self, _kind, _name):
            status = {"phase": "Failed", "initContainerStatuses": []}
            return {**POD, "metadata": {**POD["metadata"], "deletionTimestamp": "now"}, "status": status}

    monkeypatch.setattr(pods, "PAUSE", 0.0)
    with pytest.raises(pods.PodFailedError) as failed:
        pods.run_pod(Deleted(), POD, start_timeout=1)
    assert (failed.value.failure.kind, failed.value.failure.step) == ("KilledError", "train")
    assert failed.value.is_retryable
