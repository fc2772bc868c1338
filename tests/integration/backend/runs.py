"""The API server's runs; a test sets their states."""

import json
import zlib
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import kfp_server_api as kfp

from modelyard.components.step import failure_document
from tests.integration.backend.pipelines import V2, Pipelines
from tests.integration.backend.server import INVALID, NOT_FOUND, ApiError, BackendServer, Request

WORKFLOW = "train-to-serve-x7k2p"
ENDED = ("SUCCEEDED", "FAILED", "CANCELED")


class Runs:
    """Runs, and the logs of pods by name."""

    def __init__(self, server: BackendServer, pipelines: Pipelines) -> None:
        self._server, self._pipelines = server, pipelines
        self.runs: dict[str, Any] = {}
        self._workflows: dict[str, Any] = {}
        self.logs: dict[str, str] = {}
        path = rf"{V2}/runs/(?P<run_id>[^/:]+)"
        self.routes = {
            ("POST", f"{V2}/runs"): self.create,
            ("GET", f"{V2}/runs"): self.list,
            ("GET", path): self.get,
            ("DELETE", path): self.delete,
            ("POST", f"{path}:terminate"): self.terminate,
            ("POST", f"{path}:retry"): self.retry,
            ("GET", r"/apis/v1beta1/runs/(?P<run_id>[^/]+)"): self.get_v1beta1,
            ("GET", r"/apis/v1alpha1/runs/(?P<run_id>[^/]+)/nodes/(?P<pod>[^/]+)/log"): self.log,
        }

    def create(self, request: Request) -> Any:
        run = request.read("V2beta1Run")
        reference = run.pipeline_version_reference
        if reference is None or reference.pipeline_version_id not in self._pipelines.versions:
            raise ApiError(
                NOT_FOUND, "Failed to create a run: ResourceNotFoundError: PipelineVersion not found"
            )
        if run.experiment_id not in self._pipelines.experiments:
            raise ApiError(NOT_FOUND, "Failed to create a run: ResourceNotFoundError: Experiment not found")
        self._check(run, self._pipelines.specs[reference.pipeline_version_id][0])
        run.run_id, run.created_at = str(uuid4()), datetime.now(UTC)
        run.storage_state = "AVAILABLE"
        self.runs[run.run_id] = run
        self.set_state(run.run_id, "PENDING")
        return run

    def workflow(self, run_id: str) -> Any:
        """Return the Workflow of a run in Argo."""
        empty = {"metadata": {"name": WORKFLOW}, "spec": {}, "status": {"nodes": {}}}
        return self._workflows.setdefault(run_id, empty)

    def set_state(self, run_id: str, state: str) -> None:
        """Set the state of a run."""
        run = self.runs[run_id]
        run.state = state
        status = kfp.V2beta1RuntimeStatus(state=state, update_time=datetime.now(UTC))
        run.state_history = [*(run.state_history or []), status]
        run.finished_at = datetime.now(UTC) if state in ENDED else None
        phase = {"SUCCEEDED": "Succeeded", "FAILED": "Failed"}.get(state, "Running")
        self.workflow(run_id)["status"]["phase"] = phase

    def set_step(self, run_id: str, name: str, phase: str, log: str | None = None, message: str = "") -> str:
        """Set the phase and log of a step's pod; return the pod's name.

        The phase "Cached" means that the step has no pod, "Driver" that its driver is running.
        """
        self.node(run_id, f"{name}-driver", None, "Pod", "Running" if phase == "Driver" else "Succeeded")
        self.node(run_id, name, None, "DAG", "Succeeded" if phase == "Cached" else phase)
        if phase == "Cached":
            self.node(run_id, "executor", name, "Skipped", "Skipped", message)
        elif phase != "Driver":
            self.node(run_id, "executor", name, "Pod", phase, message)
        return self._set_log(run_id, "executor", name, log)

    def fail_step(self, run_id: str, name: str, error: Exception, log: str | None = None) -> None:
        """Fail a step with the record of an error."""
        record = failure_document(error, name).decode()
        self.set_step(run_id, name, "Failed", log, f"main: Error (exit code 1): {record}")

    def node(
        self, run_id: str, name: str, task: str | None, kind: str, phase: str, message: str = ""
    ) -> None:
        """Add a node to the Workflow of a run, or replace it."""
        nodes = self.workflow(run_id)["status"]["nodes"]
        key, before = _node_id(name, task), nodes.get(_node_id(name, task), {})
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        nodes[key] = {
            "id": key,
            "name": f"{WORKFLOW}.root.{task}.{name}" if task else f"{WORKFLOW}.root.{name}",
            "displayName": name,
            "type": kind,
            "templateName": "system-container-impl" if task else "system-container-driver",
            "boundaryID": _node_id(task, None) if task else _node_id("root", None),
            "phase": phase,
            "message": message,
            "startedAt": before.get("startedAt", now),
            "finishedAt": now if phase in ("Succeeded", "Failed", "Error", "Skipped") else None,
        }

    def _set_log(self, run_id: str, name: str, task: str | None, log: str | None) -> str:
        node = self.workflow(run_id)["status"]["nodes"].get(_node_id(name, task))
        pod = f"{WORKFLOW}-{node['templateName']}-{_node_id(name, task).rpartition('-')[2]}" if node else ""
        if log is not None:
            self.logs[pod] = log
        return pod

    def get_v1beta1(self, request: Request, run_id: str) -> Any:
        """Return a run in v1beta1, the only version with the Workflow."""
        run = self.get(request, run_id)
        manifest = json.dumps(self.workflow(run_id))
        return {
            "run": {"id": run_id, "name": run.display_name},
            "pipeline_runtime": {"workflow_manifest": manifest},
        }

    def list(self, request: Request) -> Any:
        query = request.query
        runs = list(self.runs.values())
        if self._server.multi_user and not (query.get("namespace") or query.get("experiment_id")):
            raise ApiError(INVALID, "InvalidInputError: A namespace or an experiment is required")
        if "experiment_id" in query:
            runs = [run for run in runs if run.experiment_id == query["experiment_id"]]
        return self._server.page(request, runs, "runs", "V2beta1ListRunsResponse")

    def get(self, _: Request, run_id: str) -> Any:
        if run_id not in self.runs:
            message = (
                f"Failed to get a run: Failed to fetch run: ResourceNotFoundError: Run {run_id} not found"
            )
            raise ApiError(NOT_FOUND, message)
        return self.runs[run_id]

    def delete(self, request: Request, run_id: str) -> Any:
        self.get(request, run_id)
        del self.runs[run_id]
        return {}

    def terminate(self, request: Request, run_id: str) -> Any:
        if self.get(request, run_id).state in ENDED:
            raise ApiError(INVALID, f"Failed to terminate a run: the run {run_id} has ended")
        self.set_state(run_id, "CANCELING")
        self.workflow(run_id)["spec"]["shutdown"] = "Terminate"
        self.set_state(run_id, "FAILED")  # like the real server
        return {}

    def retry(self, request: Request, run_id: str) -> Any:
        if self.get(request, run_id).state != "FAILED":
            raise ApiError(INVALID, f"Failed to retry a run: the run {run_id} is not in a failed state")
        self.set_state(run_id, "RUNNING")
        return {}

    def log(self, request: Request, run_id: str, pod: str) -> Any:
        self.get(request, run_id)
        # the real server sends status 200 before it reads the log
        return self.logs.get(pod, '{"error_message":"Failed to read logs","error_details":"pod not found"}')

    def _check(self, run: Any, spec: Any) -> None:
        """Refuse unknown and missing parameters."""
        expected = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        parameters = (run.runtime_config.parameters if run.runtime_config else None) or {}
        required = {
            name
            for name, field in expected.items()
            if "defaultValue" not in field and not field.get("isOptional")
        }
        if unknown := sorted(parameters.keys() - expected.keys()):
            message = f"parameter(s) provided are not required by pipeline: {', '.join(unknown)}"
            raise ApiError(INVALID, f"Failed to create a run: {message}")
        if missing := sorted(required - parameters.keys()):
            raise ApiError(INVALID, f"Failed to create a run: parameter(s) missing: {', '.join(missing)}")


def _node_id(name: str, task: str | None) -> str:
    """Return the id of a node; it ends with a hash of its name."""
    return f"{WORKFLOW}-{zlib.crc32(f'{task}.{name}'.encode())}"
