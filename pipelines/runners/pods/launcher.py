"""The process that kfp.local starts for a task of a run in pods: it runs a pod, and exits when the pod ends.

    python -m modelyard.pipelines.runners.pods.launcher train COMMAND… --executor_input JSON …

The pod executes COMMAND. Artifacts remain in the bucket; only parameters are downloaded to this machine.
"""

import json
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from pathlib import Path

from modelyard.components import events
from modelyard.components.artifacts import Record, read
from modelyard.components.errors import ModelyardError, NotFoundError
from modelyard.components.events import Waiting
from modelyard.components.kubernetes import Json
from modelyard.components.kubernetes.cluster import connect
from modelyard.components.records import RUN_ID
from modelyard.components.step import step, termination_log
from modelyard.components.store import staging
from modelyard.pipelines.runners.pods.pod import RUN_LABEL, PodFailedError, print_line, run_pod

VARIABLE = "MODELYARD_PODS"
PODS = "pods.json"
INPUT = "--executor_input"


class LaunchConfig(Record):
    """The values that all tasks of a run need (`pods.json`).

    Attributes:
        local_root: the folder of outputs for kfp.local.
        bucket_root: the URL of the same outputs in the bucket.
        endpoint: the URL of a storage emulator for this machine.
        endpoint_in_pods: the URL of the same emulator for pods.
        start_timeout: the maximum time in seconds until a container of a pod starts.
        retries: how often each step is retried when it fails or loses its pod.
    """

    run: str
    namespace: str
    pods: dict[str, Json]
    local_root: str
    bucket_root: str
    endpoint: str | None
    endpoint_in_pods: str | None
    start_timeout: float
    retries: dict[str, int]

    def uri(self, path: Path) -> str:
        """Return the URI in the bucket for a local path of kfp.local."""
        return f"{self.bucket_root}/{path.relative_to(self.local_root).as_posix()}"


def artifacts_uri(run: Path) -> str | None:
    """Return the URI of a run's artifacts, or None if its steps were not pods.

    Raises:
        DataError: another version of modelyard wrote the file.
    """
    return read(run / PODS, LaunchConfig).bucket_root if (run / PODS).exists() else None


def main() -> int:
    """Run one task and return its exit code; a failure is recorded."""
    name, command = sys.argv[1], sys.argv[2:]
    try:
        with step(name):
            run_task(name, command, read(Path(os.environ[VARIABLE]), LaunchConfig))
    except ModelyardError as error:
        if isinstance(error, PodFailedError) and (path := termination_log()):
            path.write_bytes(error.failure.to_json())  # replaces the record of this process
        print_line(str(error))
        return 1
    return 0


def run_task(step: str, command: list[str], launch: LaunchConfig) -> None:
    """Run the command of a task in a pod, with retries, and download its parameters.

    Raises:
        PodFailedError: the last pod cannot start, was stopped, or its step failed.
        ClusterError: the cluster rejects the pod or does not respond.
        StoreError: the parameters cannot be read.
    """
    index = command.index(INPUT) + 1
    task = PodTask(json.loads(command[index]), launch)
    command = [*command[:index], json.dumps(task.executor_input), *command[index + 1 :]]
    cluster = connect(launch.namespace, retry_connection=True)

    def on_wait(reason: str) -> None:
        print_line(reason)
        events.emit(Waiting(step=step, reason=reason))

    for retries in range(launch.retries[step], -1, -1):
        pod = _create_pod(step, command, task, launch)
        try:
            run_pod(cluster, pod, launch.start_timeout, _forward_line, on_wait)
            break
        except PodFailedError as error:
            if not retries or not error.is_retryable:
                raise
            print_line(f"{error} The step {step} is retried; attempts left: {retries}.")
    for path in task.parameter_files:
        with suppress(NotFoundError):  # a function that returns its value writes no file for it
            staging.fetch(launch.uri(path), path, launch.endpoint)


def _forward_line(line: str) -> None:
    """Print a line of the pod's log; append an event to the events of the run."""
    if event := events.parse(line):
        events.emit(event)
    else:
        print_line(line)


class PodTask:
    """A task for execution in a pod: it writes below /gcs, from where its outputs go to the bucket.

    `executor_input` is KFP's JSON with the paths in the pod, `inputs` the URIs of the input artifacts.
    `parameter_files` are the local files of the output parameters and `executor_output.json`; `output_uri` is
    the URI of the folder of all outputs.
    """

    def __init__(self, executor_input: Json, launch: LaunchConfig) -> None:
        self.executor_input = deepcopy(executor_input)
        outputs = self.executor_input["outputs"]
        files = [outputs, *outputs.get("parameters", {}).values()]
        self.parameter_files = [Path(file["outputFile"]) for file in files]
        for file, path in zip(files, self.parameter_files, strict=True):
            file["outputFile"] = str(staging.mount_path(launch.uri(path)))
        for artifact in _iterate_artifacts(outputs):
            artifact["uri"] = launch.uri(Path(artifact["uri"]))
        self.inputs = [
            artifact["uri"] for artifact in _iterate_artifacts(self.executor_input.get("inputs", {}))
        ]
        self.output_uri = launch.uri(self.parameter_files[0].parent)


def _iterate_artifacts(section: Json) -> Iterator[Json]:
    for artifact_list in section.get("artifacts", {}).values():
        yield from artifact_list["artifacts"]


def _create_pod(step: str, command: list[str], task: PodTask, launch: LaunchConfig) -> Json:
    """Return the pod of an attempt, with a new name, its commands and artifacts."""
    pod = deepcopy(launch.pods[step])
    pod["metadata"]["name"] = f"{launch.run}-{step}-{secrets.token_hex(2)}"
    pod["metadata"]["labels"][RUN_LABEL] = launch.run
    pod |= {"apiVersion": "v1", "kind": "Pod"}
    fetch, main = pod["spec"]["initContainers"]
    (put,) = pod["spec"]["containers"]
    emulator = ["--endpoint", launch.endpoint_in_pods] if launch.endpoint_in_pods else []
    stage = ["python3", "-m", "modelyard.components.store.staging", *emulator]
    fetch["command"] = [*stage, "fetch", *task.inputs]
    main["command"] = command
    main["env"] = [*main["env"], {"name": RUN_ID, "value": launch.run}]
    put["command"] = [*stage, "put", task.output_uri]
    return pod


if __name__ == "__main__":
    sys.exit(main())
