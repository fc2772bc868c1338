"""Sending a pipeline beside KFP's own tools: `make bench-submit`.

- submit: `modelyard submit`, checks and all, until the run is accepted, beside a script that calls kfp.Client
- compile: `modelyard compile` beside a script that calls KFP's compiler

The server is that of the tests: it answers at once, so that what is measured is what runs here.
"""

import os
import sys
import tempfile
from pathlib import Path

import yaml

from measure import paired, show, turns, wall
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


def serve() -> BackendServer:
    """Start the server."""
    server = BackendServer()
    pipelines = Pipelines(server)
    server.mount(pipelines)
    server.mount(Runs(server, pipelines))
    server.start()
    return server


def main() -> None:
    """Measure both and print it."""
    os.environ["PYTHONWARNINGS"] = "ignore"
    with tempfile.TemporaryDirectory() as folder:
        server, place, out = serve(), Path(folder) / "place.yaml", Path(folder) / "out.yaml"
        settings = {
            "kind": "kubernetes",
            "images": {name: f"registry.example/{name}@{DIGEST}" for name in (*IMAGES, *ACCELERATED_IMAGES)},
            "store": "gs://bucket/models",
            "pipeline_root": "gs://bucket/runs",
            "kfp": {"endpoint": server.url},
        }
        place.write_text(yaml.safe_dump(settings))
        home = {"MODELYARD_HOME": folder, "KUBECONFIG": folder}
        ours = [MODELYARD, "submit", "-e", place]
        bare = [sys.executable, HERE / "bare_submit.py", place, server.url]
        wall(ours, **home)  # the bare script needs a pipeline to add a version to
        sent = turns(ROUNDS, {"ours": lambda: wall(ours, **home), "bare": lambda: wall(bare, **home)})
        ours_too = [MODELYARD, "compile", "-e", place, "-o", out]
        bare_too = [sys.executable, HERE / "bare_compile.py", place, out]
        compiled = turns(ROUNDS, {"ours": lambda: wall(ours_too), "bare": lambda: wall(bare_too)})
        server.stop()
    rows = [
        paired("submit, until accepted", sent["ours"], sent["bare"], "s", "<= 1.3x"),
        paired("compile", compiled["ours"], compiled["bare"], "s", "<= 1.3x"),
    ]
    show("sending a pipeline", rows)


if __name__ == "__main__":
    main()
