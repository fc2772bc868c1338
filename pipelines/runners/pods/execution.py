"""Executes a run with pods as steps. kfp.local handles order, conditions and cache."""

import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from modelyard.components import lifeline
from modelyard.components.artifacts import Outcome, Prediction, read, write
from modelyard.components.kubernetes.cluster import connect
from modelyard.components.store import staging
from modelyard.components.store.storage import open_objects
from modelyard.pipelines.compile.compiler import NO_OPTIONS, compile_to, parse_package
from modelyard.pipelines.compile.lean_kfp import exec_python
from modelyard.pipelines.compile.preflight import check_interfaces
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners.local.execution import LocalExecution
from modelyard.pipelines.runners.pods import launcher
from modelyard.pipelines.runners.pods.launcher import LaunchConfig
from modelyard.pipelines.runners.pods.pod import (
    RUN_LABEL,
    STEP_PODS,
    create_step_pod,
    remove_pod,
    remove_pods,
)
from modelyard.pipelines.serving.smoke_test import predict_on_cluster
from modelyard.pipelines.steps import STEPS

LAUNCHER = ["python3", "-P", "-m", launcher.__name__]
IN_PODS = tuple(name for name, step in STEPS.items() if not step.exit_task)
"""The exit task is a local process, because it reads the folder of the run."""


class PodExecution(LocalExecution):
    """One run of the pipeline with its steps as pods; artifacts and models are in a bucket."""

    def __init__(
        self,
        config: Config,
        folder: Path,
        environment: Environment,
        options: Mapping[str, bool | int] = NO_OPTIONS,
    ) -> None:
        super().__init__(config, folder, environment, options)
        self._cluster = connect(environment.runs.namespace)
        bucket = environment.artifact_store()
        self._bucket_root, self._endpoint = f"{bucket.url.rstrip('/')}/{folder.name}", bucket.endpoint

    def resume_message(self) -> str:
        """See LocalExecution."""
        return (
            "Its pods are deleted now, or by the next run if the cluster does not respond. "
            f"{super().resume_message()}"
        )

    def clean_up(self) -> None:
        """Delete the pods of the run, because its launchers were killed."""
        remove_pods(self._cluster, self.folder.name)
        time.sleep(1)  # a launcher may have been killed while it created one
        remove_pods(self._cluster, self.folder.name)

    def _create_pipeline(self) -> Callable[..., Any]:
        """Return the compiled pipeline, in which each command of a step is an argument of the launcher."""
        from kfp.components import load_component_from_text

        check_interfaces(self.environment)
        self._remove_orphaned_pods()
        self._remove_stale_cache_entries()
        path = self.folder / "pipeline.yaml"
        compile_to(self.config, path, self.environment)
        pipeline, platform = parse_package(path.read_bytes())
        launch = LaunchConfig(
            run=self.folder.name,
            namespace=self.environment.runs.namespace,
            pods={step: create_step_pod((pipeline, platform), step, self.environment) for step in IN_PODS},
            local_root=str(self.folder / "artifacts"),
            bucket_root=self._bucket_root,
            endpoint=self._endpoint,
            endpoint_in_pods=self.environment.storage_endpoint,
            start_timeout=self.environment.start_timeout,
            retries={step: self.environment.resources(step).retries for step in IN_PODS},
        )
        write(self.folder / launcher.PODS, launch)
        os.environ[launcher.VARIABLE] = str(self.folder / launcher.PODS)
        for step in IN_PODS:
            container = pipeline["deploymentSpec"]["executors"][f"exec-{step}"]["container"]
            container["command"] = [*LAUNCHER, step, *exec_python(container["command"], "python3")]
        for dag in (pipeline["root"], *pipeline["components"].values()):
            for task in dag.get("dag", {}).get("tasks", {}).values():
                task.pop("retryPolicy", None)  # the launcher retries
        return load_component_from_text(yaml.safe_dump_all([pipeline, platform]))  # type: ignore[no-any-return]

    def _fetch_evaluation(self) -> Path:
        folder = self.folder / "artifacts" / "evaluate"
        uri = self._artifact_uri("evaluate", "evaluation")
        staging.fetch(uri, folder / "evaluation", self._endpoint)
        staging.fetch(f"{uri.rpartition('/')[0]}/report", folder / "report", self._endpoint)
        return folder / "evaluation"

    def _read_outcome(self) -> Outcome | None:
        if not self._succeeded("deploy"):
            return None
        path = self.folder / "artifacts" / "deploy" / "outcome"
        staging.fetch(self._artifact_uri("deploy", "outcome"), path, self._endpoint)
        return read(path, Outcome)

    def _predict(self) -> Prediction | None:
        return predict_on_cluster(self.config.name, self.config.store, self.environment)

    def _remove_stale_cache_entries(self) -> None:
        """Remove cache entries with artifacts of runs that were deleted from the bucket."""
        bucket = self.environment.artifact_store()
        existing_runs = set(open_objects(bucket, staging.SETTING).folders(""))
        run_name = re.compile(re.escape(f"{bucket.url.rstrip('/')}/") + r"([^/\"]+)/")
        for entry in self.cache.glob("*.json"):
            if not set(run_name.findall(entry.read_text(encoding="utf-8"))) <= existing_runs:
                entry.unlink()

    def _remove_orphaned_pods(self) -> None:
        """Delete the pods of killed runs of this machine."""
        for pod in self._cluster.list_objects("Pod", labels=STEP_PODS):
            run = self.folder.parent / pod["metadata"]["labels"][RUN_LABEL]
            if run.is_dir() and not lifeline.is_held(run / "lifeline"):
                remove_pod(self._cluster, pod["metadata"]["name"])
