"""Run modules of components.train, which need TensorFlow, in a child process or in a pod of `train`.

Neither outlives the plan for long: the process follows its lifeline; the next plan of this machine removes
the pod of a killed plan, which also has a deadline.
"""

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from modelyard.components import artifacts, lifeline
from modelyard.components.artifacts import Record
from modelyard.components.errors import (
    ClusterError,
    KilledError,
    ModelyardError,
    OutOfMemoryError,
    TooLargeError,
    TrainError,
)
from modelyard.components.kubernetes import Json
from modelyard.components.kubernetes.cluster import Cluster, connect
from modelyard.components.records import Failure
from modelyard.components.step import VARIABLE
from modelyard.components.train.measurement import ProbeRequest, ProbeResult
from modelyard.pipelines.compile.compiler import compile_package, parse_package
from modelyard.pipelines.compile.preflight import check_interfaces
from modelyard.pipelines.compile.uploads import prepare_code
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners import run_folder
from modelyard.pipelines.runners.pods import pod as pods

R = TypeVar("R", bound=Record)
OUT_OF_MEMORY = (signal.SIGKILL, signal.SIGABRT)  # by Linux, and by C++
NO_OP = ["true"]  # the pod's command before and after the probe: it fetches no data and stores no result
COMPONENT, PROBE = "app.kubernetes.io/component", "probe"  # the pod is no step, and of no run
MAXIMUM_SECONDS = (
    900  # seconds, beside its start and its probe, after which the pod ends that nothing removes
)


def run_in_process(module: str, question: Record, answer: type[R], **environ: str) -> tuple[R, float]:
    """Run a module of components.train; return its answer, and the seconds that the process took.

    Args:
        module: its name; it takes the files of the question and of the answer.
        question: the question.
        answer: the record that it writes.
        environ: environment variables of the process.

    Raises:
        TooLargeError: it needed more memory than there is.
        ModelyardError: the error with which it ended.
    """
    with tempfile.TemporaryDirectory() as name, lifeline.hold(Path(name) / "lifeline") as variables:
        asked, written, record = (
            Path(name) / file for file in ("question.json", "answer.json", "failure.json")
        )
        artifacts.write(asked, question)
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-P", "-m", f"modelyard.components.train.{module}", str(asked), str(written)],
            env={
                **os.environ,
                **variables,
                VARIABLE: str(record),
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                "TMPDIR": name,
                **environ,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        seconds = time.monotonic() - began
        if done.returncode:
            raise _failure(module, done.returncode, record, done.stdout)
        return artifacts.read(written, answer), seconds


def check(environment: Environment) -> None:
    """Raise unless the cluster answers and the images fit, before anything is prepared for it.

    Raises:
        ClusterError: there is none, or its pods may not be listed.
        ConfigError: an image that was built here is of another version.
    """
    connect(environment.runs.namespace).list_objects("Pod", f"{COMPONENT}={PROBE}")
    check_interfaces(environment)


def probe_in_pod(
    request: ProbeRequest, config: Config, environment: Environment, on_progress: Callable[[str], None]
) -> tuple[ProbeResult, float]:
    """Return what a probe in a pod measured, and the seconds of the whole pod, its node and image included.

    Args:
        request: the model; its features stay here.
        config: the configuration; code of this machine is uploaded to the store, as by a run.
        environment: the cluster.
        on_progress: takes what keeps the pod waiting, and the lines of its log.

    Raises:
        ClusterError: the pod cannot run, or was stopped.
        TooLargeError: the pod, or its device, has too little memory for the model.
        TrainError: the model cannot be trained there.
    """
    uploads = prepare_code(config, environment)
    uploads.send(Console(stderr=True))
    location = uploads.config.code()
    inside = (
        location.model_copy(update={"endpoint": environment.storage_endpoint}).to_json() if location else ""
    )
    workload = request.workload.model_copy(update={"code": inside, "features": ""})
    pod_request = request.model_copy(update={"workload": workload})
    cluster, pod = connect(environment.runs.namespace), probe_pod(pod_request, config.name, environment)
    began = time.monotonic()
    try:
        with _clean_up_pods(cluster, pod["metadata"]["name"]):
            answer = pods.run_pod(cluster, pod, environment.start_timeout, on_progress, on_progress)
    except pods.PodFailedError as failed:
        error = failed.failure.to_error()
        if isinstance(error, OutOfMemoryError):
            raise TooLargeError(str(error)) from failed
        if type(error) is ModelyardError:
            raise ClusterError(f"{error} Plan without --probe, or probe with -e local.") from failed
        raise error from failed
    return ProbeResult.model_validate_json(answer), time.monotonic() - began


@contextmanager
def _clean_up_pods(cluster: Cluster, name: str) -> Iterator[None]:
    """Remove the pods of killed plans of this machine; let the next plan remove this one if it has to."""
    plans = run_folder.home() / "plans"
    plans.mkdir(parents=True, exist_ok=True)
    for pod in cluster.list_objects("Pod", f"{COMPONENT}={PROBE}"):
        path = plans / f"{pod['metadata']['name']}.lifeline"
        if path.exists() and not lifeline.is_held(path):
            pods.remove_pod(cluster, path.stem)
            path.unlink()
    path = plans / f"{name}.lifeline"
    with lifeline.hold(path):
        try:
            yield
        finally:
            path.unlink()


def probe_pod(request: ProbeRequest, model: str, environment: Environment) -> Json:
    """Return the pod of the step `train`, with a probe as its command."""
    made = pods.create_step_pod(parse_package(compile_package(environment)), "train", environment)
    made["metadata"]["name"] = f"plan-{model}-{secrets.token_hex(4)}"
    made["metadata"]["labels"][COMPONENT] = PROBE
    made["spec"]["activeDeadlineSeconds"] = MAXIMUM_SECONDS + environment.start_timeout + int(request.seconds)
    fetch, main = made["spec"]["initContainers"]
    (put,) = made["spec"]["containers"]
    fetch["command"] = put["command"] = NO_OP
    main["command"] = ["python3", "-m", "modelyard.components.train.probe", request.model_dump_json()]
    return {"apiVersion": "v1", "kind": "Pod", **made}


def _failure(module: str, code: int, record: Path, output: str) -> ModelyardError:
    """Return why a process ended as it did."""
    found = Failure.parse(record.read_bytes()) if record.exists() else None
    error = found.to_error() if found else None
    if error and type(error) is not ModelyardError and not isinstance(error, KilledError):
        return error
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    last = lines[-1].rstrip(".") if lines else "it printed nothing"
    if -code in OUT_OF_MEMORY or isinstance(error, OutOfMemoryError):
        return TooLargeError(
            f"The {module} of the model ended with {code}, as when memory runs out: {last}. Lower the sizes "
            "in `model` or training.batch_size, or use a larger machine."
        )
    return TrainError(f"The {module} of the model ended with {code}: {last}. `modelyard run` logs more.")
