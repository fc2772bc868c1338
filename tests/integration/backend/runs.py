"""The API server's runs: accepted as the real one accepts them; a test says how they go on."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import kfp_server_api as kfp

from tests.integration.backend.pipelines import V2, Pipelines
from tests.integration.backend.server import INVALID, NOT_FOUND, BackendServer, RefusalError, Request

ENDED = ("SUCCEEDED", "FAILED", "CANCELED")


class Runs:
    """Runs, and the logs of their pods by the pod's name."""

    def __init__(self, server: BackendServer, pipelines: Pipelines) -> None:
        self._server, self._pipelines = server, pipelines
        self.runs: dict[str, Any] = {}
        self.logs: dict[str, str] = {}
        one = rf"{V2}/runs/(?P<run_id>[^/:]+)"
        self.routes = {
            ("POST", f"{V2}/runs"): self.create,
            ("GET", f"{V2}/runs"): self.list,
            ("GET", one): self.get,
            ("DELETE", one): self.delete,
            ("POST", f"{one}:terminate"): self.terminate,
            ("POST", f"{one}:retry"): self.retry,
            ("GET", r"/apis/v1alpha1/runs/(?P<run_id>[^/]+)/nodes/(?P<pod>[^/]+)/log"): self.log,
        }

    def create(self, request: Request) -> Any:
        run = request.read("V2beta1Run")
        reference = run.pipeline_version_reference
        if reference is None or reference.pipeline_version_id not in self._pipelines.versions:
            raise RefusalError(
                NOT_FOUND, "Failed to create a run: ResourceNotFoundError: PipelineVersion not found"
            )
        if run.experiment_id not in self._pipelines.experiments:
            raise RefusalError(
                NOT_FOUND, "Failed to create a run: ResourceNotFoundError: Experiment not found"
            )
        self._check(run, self._pipelines.specs[reference.pipeline_version_id][0])
        run.run_id, run.created_at = str(uuid4()), datetime.now(UTC)
        run.storage_state = "AVAILABLE"
        self.runs[run.run_id] = run
        self.become(run.run_id, "PENDING")
        return run

    def become(self, run_id: str, state: str) -> None:
        """Let a run be in a state from now on."""
        run = self.runs[run_id]
        run.state = state
        status = kfp.V2beta1RuntimeStatus(state=state, update_time=datetime.now(UTC))
        run.state_history = [*(run.state_history or []), status]
        run.finished_at = datetime.now(UTC) if state in ENDED else None

    def task(self, run_id: str, name: str, state: str, pod: str | None = None) -> None:
        """Let a task of a run be in a state: listed as the step, and as the pod that does it."""
        run = self.runs[run_id]
        now = datetime.now(UTC)
        details = run.run_details or kfp.V2beta1RunDetails(task_details=[])
        kept = [one for one in details.task_details if one.display_name != name]
        started = next((one.start_time for one in details.task_details if one.display_name == name), now)
        made = kfp.V2beta1PipelineTaskDetail(
            run_id=run_id,
            task_id=str(uuid4()),
            display_name=name,
            create_time=started,
            start_time=started,
            end_time=now if state in ENDED else None,
            state=state,
            pod_name=pod,
        )
        run.run_details = kfp.V2beta1RunDetails(task_details=[*kept, made])

    def list(self, request: Request) -> Any:
        query = request.query
        found = list(self.runs.values())
        if self._server.multi_user and not (query.get("namespace") or query.get("experiment_id")):
            raise RefusalError(INVALID, "InvalidInputError: A namespace or an experiment is required")
        if "experiment_id" in query:
            found = [one for one in found if one.experiment_id == query["experiment_id"]]
        return self._server.page(request, found, "runs", "V2beta1ListRunsResponse")

    def get(self, _: Request, run_id: str) -> Any:
        if run_id not in self.runs:
            message = (
                f"Failed to get a run: Failed to fetch run: ResourceNotFoundError: Run {run_id} not found"
            )
            raise RefusalError(NOT_FOUND, message)
        return self.runs[run_id]

    def delete(self, request: Request, run_id: str) -> Any:
        self.get(request, run_id)
        del self.runs[run_id]
        return {}

    def terminate(self, request: Request, run_id: str) -> Any:
        if self.get(request, run_id).state in ENDED:
            raise RefusalError(INVALID, f"Failed to terminate a run: the run {run_id} has ended")
        self.become(run_id, "CANCELING")
        self.become(run_id, "FAILED")  # as the real one does
        return {}

    def retry(self, request: Request, run_id: str) -> Any:
        if self.get(request, run_id).state != "FAILED":
            raise RefusalError(INVALID, f"Failed to retry a run: the run {run_id} is not in a failed state")
        self.become(run_id, "RUNNING")
        return {}

    def log(self, request: Request, run_id: str, pod: str) -> Any:
        self.get(request, run_id)
        if pod not in self.logs:
            raise RefusalError(NOT_FOUND, f"Failed to read the log: pod {pod} not found")
        return self.logs[pod]

    def _check(self, run: Any, spec: Any) -> None:
        """Refuse parameters that the pipeline lacks, and miss those that it needs."""
        wanted = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        given = (run.runtime_config.parameters if run.runtime_config else None) or {}
        needed = {
            name for name, one in wanted.items() if "defaultValue" not in one and not one.get("isOptional")
        }
        if unknown := sorted(given.keys() - wanted.keys()):
            message = f"parameter(s) provided are not required by pipeline: {', '.join(unknown)}"
            raise RefusalError(INVALID, f"Failed to create a run: {message}")
        if missing := sorted(needed - given.keys()):
            raise RefusalError(INVALID, f"Failed to create a run: parameter(s) missing: {', '.join(missing)}")
