"""A user of Kubeflow Pipelines, whose address is in MODELYARD_TEST_KFP and which runs in `kubeflow`."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.cluster.conftest import ROOT
from tests.command_line import CommandResult

ENDPOINT = os.environ.get("MODELYARD_TEST_KFP")
NAMESPACE, SERVING = "kubeflow", "modelyard-serving"
PROGRAM = Path(sys.executable).parent / "modelyard"
FINAL_STATES = ("succeeded", "failed", "cancelled")
QUICK = ("--set", "rollout.bake_seconds=1", "--set", "rollout.min_requests=20")


@dataclass(frozen=True)
class User:
    """A user with a folder, a model and a prefix in the bucket."""

    folder: Path
    prefix: str

    @property
    def model(self) -> str:
        return f"kfp-{self.prefix}"

    def start(self, *arguments: object) -> "subprocess.Popen[str]":
        """Start a command on the environment `kind`."""
        command = [str(word) for word in (PROGRAM, *arguments, "-e", "kind")]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, cwd=self.folder, text=True, **pipes)

    def __call__(self, *arguments: object) -> CommandResult:
        """Run a command on the environment `kind`."""
        return wait_for_result(self.start(*arguments))

    def submission(self, *options: object, model: str | None = None) -> tuple[object, ...]:
        """Return the command that submits the digits."""
        return ("submit", *QUICK, "--set", f"name={model or self.model}", "--output", "json", *options)

    def state(self, run: str) -> dict[str, Any]:
        """Return the JSON of `runs show`."""
        return self("runs", "show", run, "--output", "json").json

    def wait_until_ended(self, run: str) -> dict[str, Any]:
        """Wait until a run has ended, and return it."""
        while (summary := self.state(run))["state"] not in FINAL_STATES:
            time.sleep(2)
        return summary


def wait_for_result(process: "subprocess.Popen[str]") -> CommandResult:
    out, err = process.communicate()
    return CommandResult(process.returncode, out, err)


@pytest.fixture(scope="package")
def user(tmp_path_factory, kubectl) -> Iterator[User]:
    if not ENDPOINT:
        pytest.skip("NOT RUN: MODELYARD_TEST_KFP names no Kubeflow Pipelines server")
    kubectl("apply", "-k", ROOT / "manifests/overlays/kubeflow")
    folder, prefix = tmp_path_factory.mktemp("user"), uuid4().hex[:8]
    (folder / "build").mkdir()
    (folder / "build/images.json").write_bytes((ROOT / "build/images.json").read_bytes())
    variables = {
        "KF_PIPELINES_ENDPOINT": ENDPOINT,
        "MODELYARD_ENVIRONMENT__STORE": f"gs://modelyard/{prefix}/models",
        "MODELYARD_ENVIRONMENT__PIPELINE_ROOT": f"gs://modelyard/{prefix}/runs",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        new_user = User(folder, prefix)
        yield new_user
        for kind in ("deployment", "service"):
            kubectl(
                "delete",
                kind,
                "-n",
                SERVING,
                "-l",
                f"app.kubernetes.io/name in ({new_user.model}, {new_user.model}-data)",
            )


@pytest.fixture(scope="package")
def first(user) -> CommandResult:
    """The first submission of the digits."""
    return wait_for_result(user.start(*user.submission("--wait")))


@pytest.fixture(scope="package")
def pods(kubectl) -> Callable[[str], list[dict[str, Any]]]:
    """Return a function that lists the pods of a run by its id."""

    def list_pods(run_id: str) -> list[dict[str, Any]]:
        labels = f"pipeline/runid={run_id}"
        return json.loads(kubectl("get", "pods", "-n", NAMESPACE, "-l", labels, "-o", "json"))["items"]

    return list_pods
