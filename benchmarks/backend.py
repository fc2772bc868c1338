"""Compares a run on a real KFP server with a bare pipeline of ingest to deploy: `make bench-backend`.

MODELYARD_TEST_KFP is the URL of the server. No step is cached, because each run has a new pipeline root, and
each run deploys for the first time. The duration of a run is the time from its creation to its end.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml

from measure import Result, make_paired_result, make_result, print_results, run_command, run_interleaved
from modelyard.components.kubernetes.cluster import connect as connect_cluster
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.runners.base import END_STATES, KFP_RUN_ID
from modelyard.pipelines.runners.kfp import runs
from modelyard.pipelines.runners.kfp.client import Backend, connect

HERE = Path(__file__).parent
MODELYARD = Path(sys.executable).parent / "modelyard"
NAME = "bench-backend"
SUBMISSIONS = 7
ADDITIONAL_PODS = 7  # fingerprint and explain, two each; the exit handler and both conditions, one each
QUICK = [part for key in ("bake_seconds=1", "min_requests=20") for part in ("--set", f"rollout.{key}")]


def submit_and_get_id(command: list[str | Path]) -> str:
    """Run a command that submits a run; return the last run id in its output."""
    return [match.group() for match in KFP_RUN_ID.finditer(run_command(command))][-1]


class Bench:
    """The KFP server, and the pods of each measured run."""

    def __init__(self, environment: str, url: str, folder: Path) -> None:
        os.environ["KF_PIPELINES_ENDPOINT"] = url
        self.environment, self.url, self.folder = load_environment(environment), url, folder
        self.backend: Backend = connect(self.environment)
        self.cluster = connect_cluster(self.backend.namespace)
        self.pods: dict[str, list[float]] = {"modelyard": [], "bare": []}

    def write_environment(self) -> Path:
        """Write an environment file with an empty pipeline root and store; return its path."""
        root = f"{self.environment.pipeline_root}/{uuid4().hex[:8]}"
        path = self.folder / f"{uuid4().hex}.yaml"
        values = self.environment.model_dump(mode="json", exclude={"images"})
        values |= {"pipeline_root": root, "store": f"{root}/models"}
        path.write_text(yaml.safe_dump(values))
        return path

    def submit_command(self) -> list[str | Path]:
        """Return the command that submits the digits."""
        options = ["--set", f"name={NAME}", *QUICK, "--output", "json"]
        return [MODELYARD, "submit", "-e", self.write_environment(), *options]

    def bare_command(self, script: str) -> list[str | Path]:
        """Return the command that runs a script with the SDK: bare_pipeline.py, or bare_submit.py."""
        return [sys.executable, HERE / script, self.write_environment(), self.url, NAME]

    def time_submission(self, command: list[str | Path]) -> float:
        """Return the seconds until a run is accepted; cancel the run."""
        started = time.perf_counter()
        run_id = submit_and_get_id(command)
        seconds = time.perf_counter() - started
        runs.cancel(self.backend, runs.find_run(self.backend, run_id))
        return seconds

    def time_run(self, kind: str) -> float:
        """Run a pipeline; return the seconds from its creation to its end."""
        self.delete_servers()
        run_id = submit_and_get_id(
            self.submit_command() if kind == "modelyard" else self.bare_command("bare_pipeline.py")
        )
        run = self.wait_for_success(run_id)
        self.pods[kind].append(len(self.cluster.list_objects("Pod", f"pipeline/runid={run_id}")))
        return (run.finished_at - run.created_at).total_seconds()

    def delete_servers(self) -> None:
        """Delete the Deployments and Services."""
        selector = ("-l", f"app.kubernetes.io/name={NAME}", "-n", self.environment.serving.namespace)
        run_command(["kubectl", "delete", "deployment,service", *selector])

    def delete_pipeline(self) -> None:
        """Delete the pipeline with its versions."""
        pipeline = self.backend.pipelines.pipeline_service_get_pipeline_by_name(NAME)
        self.backend.pipelines.pipeline_service_delete_pipeline(pipeline.pipeline_id, cascade=True)

    def wait_for_success(self, run_id: str) -> Any:
        """Wait until a run has ended; it must succeed."""
        while runs.state(run := runs.find_run(self.backend, run_id)) not in END_STATES:
            time.sleep(1)
        assert runs.state(run) == "succeeded", run.run_id
        return run


def measure(bench: Bench, rounds: int) -> list[Result]:
    """Measure both pipelines in alternating rounds."""
    bench.time_submission(bench.submit_command())  # creates the pipeline
    submissions = run_interleaved(
        SUBMISSIONS,
        {
            "modelyard": lambda: bench.time_submission(bench.submit_command()),
            "bare": lambda: bench.time_submission(bench.bare_command("bare_submit.py")),
        },
    )
    seconds = run_interleaved(
        rounds, {kind: lambda kind=kind: bench.time_run(kind) for kind in ("modelyard", "bare")}
    )
    additional = bench.pods["modelyard"][0] - bench.pods["bare"][0]
    return [
        make_paired_result(
            "submit, until accepted", submissions["modelyard"], submissions["bare"], "s", "<= 1.3x"
        ),
        make_result("additional pods of a run", additional, ADDITIONAL_PODS, "pods", "<= 1x"),
        make_paired_result("pods of a run", bench.pods["modelyard"], bench.pods["bare"], "pods", ""),
        make_paired_result("whole run, nothing cached", seconds["modelyard"], seconds["bare"], "s", ""),
    ]


def main() -> None:
    """Measure everything and print it."""
    url = os.environ.get("MODELYARD_TEST_KFP")
    if not url:
        raise SystemExit(
            "NOT RUN: this needs a real KFP server. Set MODELYARD_TEST_KFP to its URL, after "
            "`make kind-up` and `kubectl apply -k manifests/overlays/kubeflow`."
        )
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--environment", default="kind")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MODELYARD_HOME"] = folder
        bench = Bench(options.environment, url, Path(folder))
        results = measure(bench, options.rounds)
        bench.delete_servers()
        bench.delete_pipeline()
    print_results("A run on Kubeflow Pipelines", results)


if __name__ == "__main__":
    main()
