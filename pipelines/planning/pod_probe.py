"""Probes a model where it would train: in a pod of the environment, with the image, size and node of `train`.

The pod has rows of noise of the same shape, so the bucket is not asked for data: what reading costs is that
of the node's memory and disk.
"""

import contextlib
import io
import secrets
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from modelyard.components.errors import ClusterError, TooLargeError, from_log
from modelyard.components.kubernetes.cluster import connect
from modelyard.components.train.measured import ANSWER, Probed, Trial
from modelyard.pipelines.compile.compiler import compile_to
from modelyard.pipelines.compile.uploads import gather
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners.pods import pod as pods
from modelyard.pipelines.runners.pods.pod import step_pod

Json = dict[str, Any]
NOTHING = ["true"]  # what is fetched before, and put away after it
COMPONENT, PROBE = "app.kubernetes.io/component", "probe"  # it is no step, and of no run
LONGEST = 3600  # seconds after which the pod ends, if the plan was killed and cannot remove it


def check(environment: Environment) -> None:
    """Raise unless the cluster answers, before anything is prepared for it.

    Raises:
        ClusterError: there is none, or it does not let us see its pods.
    """
    connect(environment.runs.namespace).list("Pod", f"{COMPONENT}={PROBE}")


def probe_in_pod(
    trial: Trial, config: Config, environment: Environment, say: Callable[[str], None]
) -> tuple[Probed, float]:
    """Return what a probe in a pod found, and the seconds of the whole pod: its node, its image, its process.

    Args:
        trial: the model; its features stay here.
        config: the configuration; code of this machine is put into the store, as a run would do it.
        environment: the cluster.
        say: takes what keeps the pod waiting, and what it prints.

    Raises:
        ClusterError: the pod cannot run, or was stopped.
        TooLargeError: the pod, or its device, has too little memory for the model.
        TrainError: the model cannot be trained there.
    """
    uploads = gather(config, environment)
    code = tuple(one for one in uploads.files if one.key == "model.code")
    replace(uploads, files=code).send(Console(stderr=True))
    there = uploads.config.code()
    inside = there.model_copy(update={"endpoint": environment.storage_endpoint}).text() if there else ""
    question = trial.question.model_copy(update={"code": inside})
    asked = trial.model_copy(update={"question": question, "features": ""})
    said, began = _Lines(say), time.monotonic()
    try:
        with contextlib.redirect_stdout(said):
            ended = pods.run_pod(
                connect(environment.runs.namespace),
                probe_pod(asked, uploads.config, environment),
                environment.start_timeout,
            )
    except pods.PodMemoryError as error:
        raise TooLargeError(str(error)) from error
    answers = [line.removeprefix(ANSWER) for line in said.lines if line.startswith(ANSWER)]
    if ended or not answers:
        last = said.lines[-1].strip().rstrip(".") if said.lines else "nothing"
        raise from_log(said.lines) or ClusterError(
            f"The probe's pod ended with {ended} and said: {last}. Plan without --probe, or probe with "
            "-e local."
        )
    probed = Probed.model_validate_json(answers[-1])
    return probed, time.monotonic() - began


class _Lines(io.TextIOBase):
    """Keeps the lines that are printed to it, and says each; the answer is for no eyes."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.lines: list[str] = []
        self._say = say

    def write(self, text: str) -> int:
        """Take a line, or the end of one, as `print` hands them over."""
        if line := text.rstrip("\n"):
            self.lines.append(line)
            if not line.startswith(ANSWER):
                self._say(line)
        return len(text)


def probe_pod(trial: Trial, config: Config, environment: Environment) -> Json:
    """Return the pod of the step `train` that probes instead of training."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compile_to(config, path, environment)
        pipeline, platform = yaml.safe_load_all(path.read_text(encoding="utf-8"))
    made = step_pod((pipeline, platform), "train", environment)
    made["metadata"]["name"] = f"plan-{config.name}-{secrets.token_hex(4)}"
    made["metadata"]["labels"][COMPONENT] = PROBE
    made["spec"]["activeDeadlineSeconds"] = LONGEST + int(trial.seconds)
    fetch, main = made["spec"]["initContainers"]
    (put,) = made["spec"]["containers"]
    fetch["command"] = put["command"] = NOTHING
    main["command"] = ["python3", "-m", "modelyard.components.train.probe", trial.model_dump_json()]
    return {"apiVersion": "v1", "kind": "Pod", **made}
