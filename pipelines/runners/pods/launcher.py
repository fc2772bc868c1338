"""What kfp.local starts for a task of a run in pods: it starts the pod, follows it, and ends as it does.

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
from pathlib import Path
from typing import Any

from modelyard.components import lifeline
from modelyard.components.artifacts import Record, read
from modelyard.components.errors import ClusterError, ModelyardError, NotFoundError
from modelyard.components.kubernetes.cluster import connect
from modelyard.components.store import staging
from modelyard.pipelines.runners.pods.pod import PodLostError, PodMemoryError, run_pod

VARIABLE = "MODELYARD_PODS"
RUNTIME = "_KFP_RUNTIME=true "  # before the Python of a step
INPUT = "--executor_input"
AGAIN = "failed and is tried again"
Json = dict[str, Any]


class Plan(Record):
    """What all tasks of a run need to know.

    `pods` is each step's pod; `here` and `there` are where the task's outputs are, for kfp.local and in the
    bucket; `endpoint` is an emulator's address for this machine and `inside` for pods. `retries` is how
    often a step is tried again when it fails or its pod is lost, and not when its pod cannot run.
    """

    run: str
    namespace: str
    pods: dict[str, Json]
    here: str
    there: str
    endpoint: str | None
    inside: str | None
    start_timeout: float
    retries: dict[str, int]

    def uri(self, path: Path) -> str:
        """Return the address in the bucket of what kfp.local expects at `path`."""
        return f"{self.there}/{path.relative_to(self.here).as_posix()}"


def main() -> int:
    """Run one task; 1 when it fails, with the reason as the last line."""
    lifeline.follow()
    step, command = sys.argv[1], sys.argv[2:]
    try:
        return run(step, command, read(Path(os.environ[VARIABLE]), Plan))
    except ModelyardError as error:
        print(f"{type(error).__module__}.{type(error).__name__}: {error}", flush=True)  # noqa: T201
        return 1


def run(step: str, command: list[str], plan: Plan) -> int:
    """Run a task's command in a pod, and fetch what it says; return its exit code.

    Raises:
        ClusterError: the pod cannot run, or was stopped.
        StoreError: what it wrote cannot be read.
    """
    place = command.index(INPUT) + 1
    asked = json.loads(command[place])
    task = Task(asked, plan)
    # kfp.local wrote this machine's Python into the command; as the pod's first process it hears of its end
    inside = [
        part.replace(f"{RUNTIME}{sys.executable}", f"{RUNTIME}exec python3").replace(
            sys.executable, "python3"
        )
        for part in command
    ]
    inside[place] = json.dumps(task.asked)
    code = _attempts(step, inside, task, plan)
    for path in task.parameters if code == 0 else ():
        with suppress(NotFoundError):  # a function that gives back its value writes no file for it
            staging.fetch(plan.uri(path), path, plan.endpoint)
    return code


def _attempts(step: str, command: list[str], task: "Task", plan: Plan) -> int:
    """Run the pod, again if another attempt may help; return the last exit code."""
    cluster = connect(plan.namespace)
    for left in range(plan.retries[step], -1, -1):
        try:
            code = run_pod(cluster, _pod(step, command, task, plan), plan.start_timeout)
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


class Task:
    """A task as its pod sees it: what it writes is in /gcs, on its way to the bucket.

    Attributes:
        asked: the executor's input.
        inputs: addresses of the artifacts that it reads.
        parameters: the files here into which its parameters go, `executor_output.json` among them.
        output: the address of all that it writes.
    """

    def __init__(self, asked: Json, plan: Plan) -> None:
        self.asked = json.loads(json.dumps(asked))
        outputs = self.asked["outputs"]
        files = [outputs, *outputs.get("parameters", {}).values()]
        self.parameters = [Path(one["outputFile"]) for one in files]
        for one, path in zip(files, self.parameters, strict=True):
            one["outputFile"] = str(staging.mounted(plan.uri(path)))
        for one in _artifacts(outputs):
            one["uri"] = plan.uri(Path(one["uri"]))
        self.inputs = [one["uri"] for one in _artifacts(self.asked.get("inputs", {}))]
        self.output = plan.uri(self.parameters[0].parent)


def _artifacts(part: Json) -> Iterator[Json]:
    for several in part.get("artifacts", {}).values():
        yield from several["artifacts"]


def _pod(step: str, command: list[str], task: Task, plan: Plan) -> Json:
    """Return the step's pod with its name, its commands and its artifacts."""
    pod = plan.pods[step]
    pod["metadata"]["name"] = f"{plan.run}-{step}-{secrets.token_hex(2)}"
    pod["metadata"]["labels"]["modelyard.dev/run"] = plan.run
    pod |= {"apiVersion": "v1", "kind": "Pod"}
    fetch, main = pod["spec"]["initContainers"]
    (put,) = pod["spec"]["containers"]
    emulator = ["--endpoint", plan.inside] if plan.inside else []
    stage = ["python3", "-m", "modelyard.components.store.staging", *emulator]
    fetch["command"] = [*stage, "fetch", *task.inputs]
    main["command"] = command
    put["command"] = [*stage, "put", task.output]
    return pod


if __name__ == "__main__":
    sys.exit(main())
