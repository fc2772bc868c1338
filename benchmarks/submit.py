"""Compares submission and compilation with KFP's tools: `make bench-submit`.

- submit: `modelyard submit` with its checks until a run is accepted, and a script that calls kfp.Client
- compile: `modelyard compile`, and a script that calls KFP's compiler

The server is the fake server of the tests, which responds immediately, so only the client is measured.
"""

import os
import sys
import tempfile
from pathlib import Path

import yaml

from measure import make_paired_result, print_results, run_interleaved, time_command
from modelyard.pipelines.steps import ACCELERATED_IMAGES, IMAGES

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.integration.backend.pipelines import Pipelines
from tests.integration.backend.runs import Runs
from tests.integration.backend.server import BackendServer

HERE = Path(__file__).parent
MODELYARD = Path(sys.executable).parent / "modelyard"
ROUNDS = 7
DIGEST = "sha256:" + 64 * "0"


def start_backend() -> BackendServer:
    """Start the fake server."""
    server = BackendServer()
    pipelines = Pipelines(server)
    server.mount(pipelines)
    server.mount(Runs(server, pipelines))
    server.start()
    return server


def main() -> None:
    """Measure and print the results."""
    os.environ["PYTHONWARNINGS"] = "ignore"
    with tempfile.TemporaryDirectory() as folder:
        server, environment, out = (
            start_backend(),
            Path(folder) / "environment.yaml",
            Path(folder) / "out.yaml",
        )
        settings = {
            "kind": "kubernetes",
            "images": {name: f"registry.example/{name}@{DIGEST}" for name in (*IMAGES, *ACCELERATED_IMAGES)},
            "store": "gs://bucket/models",
            "pipeline_root": "gs://bucket/runs",
            "kfp": {"endpoint": server.url},
        }
        environment.write_text(yaml.safe_dump(settings))
        variables = {"MODELYARD_HOME": folder, "KUBECONFIG": folder}
        command = [MODELYARD, "submit", "-e", environment]
        bare_command = [sys.executable, HERE / "bare_submit.py", environment, server.url]
        time_command(command, **variables)  # creates the pipeline, to which the bare script adds a version
        submissions = run_interleaved(
            ROUNDS,
            {
                "modelyard": lambda: time_command(command, **variables),
                "bare": lambda: time_command(bare_command, **variables),
            },
        )
        compile_command = [MODELYARD, "compile", "-e", environment, "-o", out]
        bare_compile_command = [sys.executable, HERE / "bare_compile.py", environment, out]
        compiled = run_interleaved(
            ROUNDS,
            {
                "modelyard": lambda: time_command(compile_command),
                "bare": lambda: time_command(bare_compile_command),
            },
        )
        server.stop()
    results = [
        make_paired_result(
            "submit, until accepted", submissions["modelyard"], submissions["bare"], "s", "<= 1.3x"
        ),
        make_paired_result("compile", compiled["modelyard"], compiled["bare"], "s", "<= 1.3x"),
    ]
    print_results("sending a pipeline", results)


if __name__ == "__main__":
    main()
