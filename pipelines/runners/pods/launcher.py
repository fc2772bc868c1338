"""The process that kfp.local starts for a task of a run in pods: it runs the pod and ends as it does.

    python -m modelyard.pipelines.runners.pods.launcher train COMMAND… --executor_input JSON …

The command is the task's own, and runs in the pod. Artifacts stay in the bucket: this machine gets the task's
parameters, and addresses.
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
from modelyard.pipelines.runners.pods.pod import RUN, PodFailedError, print_line, run_pod

VARIABLE = "MODELYARD_PODS"
PODS = "pods.json"
INPUT = "--executor_input"


class LaunchConfig(Record):
    """What the tasks of a run have in common; the run writes it, and each task's process reads it.

    `pods` is each step's pod; `local_root` and `bucket_root` are where a task's outputs are, for kfp.local
    and in the bucket; `endpoint` is the URL of an emulator for this machine, `endpoint_in_pods` for pods.
    `retries` is how often a step runs again when it fails or its pod is lost, not when its pod cannot start.
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
        """Return the URI in the bucket of what kfp.local expects at `path`."""
        return f"{self.bucket_root}/{path.relative_to(self.local_root).as_posix()}"


def artifacts_uri(run: Path) -> str | None:
    """Return the URI of the artifacts of the run in a folder; None of a run whose steps were no pods.

    Raises:
        DataError: another version of modelyard wrote it.
    """
    return read(run / PODS, LaunchConfig).bucket_root if (run / PODS).exists() else None


def main() -> int:
    """Run one task and return its exit code; it leaves the record of its failure."""
    name, command = sys.argv[1], sys.argv[2:]
    try:
        with step(name):
            run_task(name, command, read(Path(os.environ[VARIABLE]), LaunchConfig))
    except PodFailedError as error:  # its record has the class of what the pod ended with
        if path := termination_log():
            path.write_bytes(error.failure.to_json())
        print_line(str(error))
        return 1
    except ModelyardError as error:
        print_line(str(error))
        return 1
    return 0


def run_task(step: str, command: list[str], launch: LaunchConfig) -> None:
    """Run a task's command in a pod, and fetch its parameters.

    Raises:
        PodFailedError: the pod cannot run, or was stopped, or its step failed.
        ClusterError: the cluster refuses it, or does not answer.
        StoreError: what it wrote cannot be read.
    """
    place = command.index(INPUT) + 1
    task = PodTask(json.loads(command[place]), launch)
    _run_with_retries(
        step, [*command[:place], json.dumps(task.executor_input), *command[place + 1 :]], task, launch
    )
    for path in task.parameter_files:
        with suppress(NotFoundError):  # a function that gives back its value writes no file for it
            staging.fetch(launch.uri(path), path, launch.endpoint)


def _run_with_retries(step: str, command: list[str], task: "PodTask", launch: LaunchConfig) -> None:
    """Run the pod, again if another attempt may help.

    Raises:
        PodFailedError: the last one failed.
    """
    cluster = connect(launch.namespace, retry_connection=True)

    def on_wait(reason: str) -> None:
        print_line(reason)
        events.emit(Waiting(step=step, reason=reason))

    for left in range(launch.retries[step], -1, -1):
        try:
            run_pod(cluster, _pod(step, command, task, launch), launch.start_timeout, _forward_line, on_wait)
        except PodFailedError as failed:
            if not left or not failed.is_retryable:
                raise
            print_line(f"{failed} The step {step} is tried again; {left} attempts are left.")
        else:
            return


def _forward_line(line: str) -> None:
    """Print a line of the pod's log; an event goes to those of the run."""
    if event := events.parse(line):
        events.emit(event)
    else:
        print_line(line)


class PodTask:
    """A task as its pod sees it: it writes to /gcs, from where its outputs go to the bucket.

    Attributes:
        executor_input: KFP's JSON, with paths as the pod sees them.
        inputs: URIs of the artifacts that it reads.
        parameter_files: the files of this machine for its parameters, `executor_output.json` among them.
        output_uri: of all that it writes.
    """

    def __init__(self, executor_input: Json, launch: LaunchConfig) -> None:
        self.executor_input = deepcopy(executor_input)
        outputs = self.executor_input["outputs"]
        files = [outputs, *outputs.get("parameters", {}).values()]
        self.parameter_files = [Path(one["outputFile"]) for one in files]
        for one, path in zip(files, self.parameter_files, strict=True):
            one["outputFile"] = str(staging.mounted(launch.uri(path)))
        for one in _artifacts(outputs):
            one["uri"] = launch.uri(Path(one["uri"]))
        self.inputs = [one["uri"] for one in _artifacts(self.executor_input.get("inputs", {}))]
        self.output_uri = launch.uri(self.parameter_files[0].parent)


def _artifacts(part: Json) -> Iterator[Json]:
    for several in part.get("artifacts", {}).values():
        yield from several["artifacts"]


def _pod(step: str, command: list[str], task: PodTask, launch: LaunchConfig) -> Json:
    """Return the step's pod with its name, its commands and its artifacts."""
    pod = deepcopy(launch.pods[step])  # another attempt makes another one
    pod["metadata"]["name"] = f"{launch.run}-{step}-{secrets.token_hex(2)}"
    pod["metadata"]["labels"][RUN] = launch.run
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
