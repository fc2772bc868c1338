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

from modelyard.components import events, lifeline
from modelyard.components.artifacts import Record, read
from modelyard.components.errors import ClusterError, ModelyardError, NotFoundError
from modelyard.components.events import Waiting
from modelyard.components.kubernetes import Json
from modelyard.components.kubernetes.cluster import connect
from modelyard.components.store import staging
from modelyard.pipelines.runners.pods.pod import PodLostError, PodMemoryError, print_line, run_pod

VARIABLE = "MODELYARD_PODS"
RUNTIME = "_KFP_RUNTIME=true "  # before the Python of a step
INPUT = "--executor_input"
AGAIN = "failed and is tried again"


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


def main() -> int:
    """Run one task; 1 when it fails, with the reason as the last line."""
    lifeline.follow()
    step, command = sys.argv[1], sys.argv[2:]
    try:
        return run(step, command, read(Path(os.environ[VARIABLE]), LaunchConfig))
    except ModelyardError as error:
        print(f"{type(error).__module__}.{type(error).__name__}: {error}", flush=True)  # noqa: T201
        return 1


def run(step: str, command: list[str], launch: LaunchConfig) -> int:
    """Run a task's command in a pod, and fetch its parameters; return its exit code.

    Raises:
        ClusterError: the pod cannot run, or was stopped.
        StoreError: what it wrote cannot be read.
    """
    place = command.index(INPUT) + 1
    task = Task(json.loads(command[place]), launch)
    # kfp.local wrote this machine's Python into the command; as the pod's first process it gets SIGTERM
    pod_command = [
        part.replace(f"{RUNTIME}{sys.executable}", f"{RUNTIME}exec python3").replace(
            sys.executable, "python3"
        )
        for part in command
    ]
    pod_command[place] = json.dumps(task.executor_input)
    code = _attempts(step, pod_command, task, launch)
    for path in task.parameter_files if code == 0 else ():
        with suppress(NotFoundError):  # a function that gives back its value writes no file for it
            staging.fetch(launch.uri(path), path, launch.endpoint)
    return code


def _attempts(step: str, command: list[str], task: "Task", launch: LaunchConfig) -> int:
    """Run the pod, again if another attempt may help; return the last exit code."""
    cluster = connect(launch.namespace)

    def waits(reason: str) -> None:
        print_line(reason)
        events.emit(Waiting(step=step, reason=reason))

    for left in range(launch.retries[step], -1, -1):
        try:
            code = run_pod(cluster, _pod(step, command, task, launch), launch.start_timeout, _show, waits)
        except PodLostError as lost:
            if not left:
                raise ClusterError(str(lost)) from lost
            print(lost, flush=True)  # noqa: T201
        except PodMemoryError as killed:
            raise ClusterError(str(killed)) from killed
        else:
            if code == 0:
                return 0
        if left:
            print(f"{step} {AGAIN}; {left} attempts are left.", flush=True)  # noqa: T201
    return code


def _show(line: str) -> None:
    """Print a line of the pod's log; an event goes to those of the run."""
    if event := events.parse(line):
        events.emit(event)
    else:
        print_line(line)


class Task:
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


def _pod(step: str, command: list[str], task: Task, launch: LaunchConfig) -> Json:
    """Return the step's pod with its name, its commands and its artifacts."""
    pod = launch.pods[step]
    pod["metadata"]["name"] = f"{launch.run}-{step}-{secrets.token_hex(2)}"
    pod["metadata"]["labels"]["modelyard.dev/run"] = launch.run
    pod |= {"apiVersion": "v1", "kind": "Pod"}
    fetch, main = pod["spec"]["initContainers"]
    (put,) = pod["spec"]["containers"]
    emulator = ["--endpoint", launch.endpoint_in_pods] if launch.endpoint_in_pods else []
    stage = ["python3", "-m", "modelyard.components.store.staging", *emulator]
    fetch["command"] = [*stage, "fetch", *task.inputs]
    main["command"] = command
    put["command"] = [*stage, "put", task.output_uri]
    return pod


if __name__ == "__main__":
    sys.exit(main())
