"""Runs modules of components.train, which import TensorFlow, in a child process or in a pod of `train`.

If the plan is killed, its process ends too, because its lifeline is released. Its pod has a deadline, and the
next plan on this machine deletes it.
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
from modelyard.components.step import TERMINATION_LOG_VARIABLE
from modelyard.components.train.measurement import ProbeRequest, ProbeResult
from modelyard.pipelines.compile.compiler import compile_package, parse_package
from modelyard.pipelines.compile.preflight import check_interfaces
from modelyard.pipelines.compile.uploads import prepare_code
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners import run_folder
from modelyard.pipelines.runners.pods import pod as pods

R = TypeVar("R", bound=Record)
OUT_OF_MEMORY_SIGNALS = (signal.SIGKILL, signal.SIGABRT)  # of the kernel, and of std::bad_alloc in C++
NO_OP = ["true"]  # the command of the pod's containers that transfer artifacts
COMPONENT, PROBE = "app.kubernetes.io/component", "probe"  # a label that no step's pod has
MAX_POD_SECONDS = 900  # the pod's deadline, in addition to its start and its probe


def run_in_process(module: str, request: Record, result_class: type[R], **environ: str) -> tuple[R, float]:
    """Run a module of components.train; return its result and the duration of the process in seconds.

    The module takes the paths of the files of request and result. `environ` are additional environment
    variables.

    Raises:
        TooLargeError: the process ran out of memory.
        ModelyardError: the process failed.
    """
    with tempfile.TemporaryDirectory() as name, lifeline.hold(Path(name) / "lifeline") as variables:
        files = ("request.json", "result.json", "failure.json")
        request_file, result_file, failure_file = (Path(name) / file for file in files)
        artifacts.write(request_file, request)
        start = time.monotonic()
        process = subprocess.run(
            [sys.executable, "-P", "-m", f"modelyard.components.train.{module}", request_file, result_file],
            env={
                **os.environ,
                **variables,
                TERMINATION_LOG_VARIABLE: str(failure_file),
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
        seconds = time.monotonic() - start
        if process.returncode:
            raise _create_error(module, process.returncode, failure_file, process.stdout)
        return artifacts.read(result_file, result_class), seconds


def check_cluster(environment: Environment) -> None:
    """Check that the cluster responds and that the images fit this version, before data is prepared.

    Raises:
        ClusterError: there is no cluster, or its pods may not be listed.
        ConfigError: an image that was built on this machine is of another version.
    """
    connect(environment.runs.namespace).list_objects("Pod", f"{COMPONENT}={PROBE}")
    check_interfaces(environment)


def probe_in_pod(
    request: ProbeRequest, config: Config, environment: Environment, log: Callable[[str], None]
) -> tuple[ProbeResult, float]:
    """Return the result of a probe in a pod, and its duration in seconds.

    The duration includes the start of a new node and the pull of the image. Local code is uploaded to the
    store, as for a run; features are not. `log` receives the reasons why the pod waits, and its log lines.

    Raises:
        ClusterError: the pod cannot run, or was stopped.
        TooLargeError: the pod or its device has too little memory for the model.
        TrainError: the model cannot be trained there.
    """
    uploads = prepare_code(config, environment)
    uploads.send(Console(stderr=True))
    location = uploads.config.code()
    for_pods = location.model_copy(update={"endpoint": environment.storage_endpoint}) if location else None
    code = for_pods.to_json() if for_pods else ""
    workload = request.workload.model_copy(update={"code": code, "features": ""})
    pod_request = request.model_copy(update={"workload": workload})
    cluster = connect(environment.runs.namespace)
    pod = create_probe_pod(pod_request, config.name, environment)
    start = time.monotonic()
    try:
        with _clean_up_pods(cluster, pod["metadata"]["name"]):
            result = pods.run_pod(cluster, pod, environment.start_timeout, log, log)
    except pods.PodFailedError as failed:
        error = failed.failure.to_error()
        if isinstance(error, OutOfMemoryError):
            raise TooLargeError(str(error)) from failed
        if type(error) is ModelyardError:
            raise ClusterError(f"{error} Plan without --probe, or probe with -e local.") from failed
        raise error from failed
    return ProbeResult.model_validate_json(result), time.monotonic() - start


@contextmanager
def _clean_up_pods(cluster: Cluster, name: str) -> Iterator[None]:
    """Delete the pods of killed plans of this machine; mark the pod `name` for the next plan."""
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


def create_probe_pod(request: ProbeRequest, model: str, environment: Environment) -> Json:
    """Return the pod of the step `train`, with a probe as its command."""
    pod = pods.create_step_pod(parse_package(compile_package(environment)), "train", environment)
    pod["metadata"]["name"] = f"plan-{model}-{secrets.token_hex(4)}"
    pod["metadata"]["labels"][COMPONENT] = PROBE
    deadline = MAX_POD_SECONDS + environment.start_timeout + int(request.seconds)
    pod["spec"]["activeDeadlineSeconds"] = deadline
    fetch, main = pod["spec"]["initContainers"]
    (put,) = pod["spec"]["containers"]
    fetch["command"] = put["command"] = NO_OP
    main["command"] = ["python3", "-m", "modelyard.components.train.probe", request.model_dump_json()]
    return {"apiVersion": "v1", "kind": "Pod", **pod}


def _create_error(module: str, code: int, failure_file: Path, output: str) -> ModelyardError:
    failure = Failure.parse(failure_file.read_bytes()) if failure_file.exists() else None
    error = failure.to_error() if failure else None
    if error and type(error) is not ModelyardError and not isinstance(error, KilledError):
        return error
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    line = lines[-1].rstrip(".") if lines else "it printed nothing"
    reason = f"The process {module} ended with exit code {code}"
    if -code in OUT_OF_MEMORY_SIGNALS or isinstance(error, OutOfMemoryError):
        return TooLargeError(
            f"{reason}, probably because it ran out of memory: {line}. Reduce the layer sizes in `model` or "
            "training.batch_size, or use a larger machine."
        )
    return TrainError(f"{reason}: {line}. `modelyard run` has the complete log.")
