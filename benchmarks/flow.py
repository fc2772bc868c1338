"""Compares the whole flow with bare scripts: `make bench-flow`.

- training samples/s: the train step and the tutorial's script, with the same computation
- digits run: `modelyard run` without a cache, and bare_digits.py, which loads, trains and saves
- overhead per step: the time of a step in a run minus the time of its function in a bare process
- rerun: a second `modelyard run`, and six cached steps in kfp.local with one start of the server
- help: `modelyard --help`, with a maximum of 0.08 s
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import training
from measure import Result, make_result, measure_medians, print_results, time_command
from modelyard.pipelines.compile.compiler import create_arguments
from modelyard.pipelines.config.config import load

HERE = Path(__file__).parent
MODELYARD = Path(sys.executable).parent / "modelyard"
ROUNDS = 3
CALLS = {
    "ingest": "from modelyard.components.ingest.dataset import ingest;"
    "from modelyard.components.ingest.spec import IngestSpec;"
    "ingest(IngestSpec.from_json({ingest_spec!r}), 'bench', {out!r})",
    "preprocess": "from modelyard.components.preprocess.features import preprocess;"
    "from modelyard.components.preprocess.spec import PreprocessSpec;"
    "preprocess({raw!r}, PreprocessSpec.from_json({preprocess_spec!r}), {out!r})",
}


def run_digits(home: Path) -> dict[str, object]:
    """Run the digits with the data folder `home`; return the summary."""
    command = [MODELYARD, "run", "--output", "json", "--set", f"store.url={home / 'models'}"]
    environment = {**os.environ, "MODELYARD_HOME": str(home)}
    process = subprocess.run(command, check=True, capture_output=True, env=environment)
    return json.loads(process.stdout)


def measure_first_run(scratch: Path) -> Result:
    """Compare a first run with the bare script."""

    def run_modelyard() -> float:
        with tempfile.TemporaryDirectory(dir=scratch) as home:
            started = time.perf_counter()
            run_digits(Path(home))
            return time.perf_counter() - started

    bare = [sys.executable, HERE / "bare_digits.py", scratch / "bare.keras"]
    seconds = measure_medians(ROUNDS, {"modelyard": run_modelyard, "bare": lambda: time_command(bare)})
    return make_result("digits run", seconds["modelyard"], seconds["bare"], "s", "<= 1.3x")


def measure_rerun(scratch: Path) -> Result:
    """Compare a run without changes with a bare cached rerun and one start of the server."""
    home = scratch / "rerun"
    run_digits(home)
    bare = [sys.executable, HERE / "bare_kfp.py", scratch / "bare"]
    time_command(bare)

    def run_modelyard() -> float:
        started = time.perf_counter()
        run_digits(home)
        return time.perf_counter() - started

    seconds = measure_medians(
        ROUNDS,
        {
            "modelyard": run_modelyard,
            "kfp": lambda: time_command(bare),
            "server": lambda: time_server_start(home),
        },
    )
    baseline = seconds["kfp"] + seconds["server"]
    return make_result("rerun without changes", seconds["modelyard"], baseline, "s", "<= 1.3x")


def time_server_start(home: Path) -> float:
    """Return the seconds to start and stop a server."""
    from modelyard.components.deploy.platforms import local

    config = load(None, [f"store.url={home / 'models'}"], {})
    started = time.perf_counter()
    with local.running_server(config.name, config.store.to_json(), config.serving.model_dump(mode="json")):
        pass
    return time.perf_counter() - started


def measure_step_overhead(scratch: Path) -> Result:
    """Measure the additional time of a step in a run, compared with its function in a bare process."""
    values = create_arguments(load(None))

    def in_run() -> float:
        with tempfile.TemporaryDirectory(dir=scratch) as home:
            steps = {step["name"]: step["seconds"] for step in run_digits(Path(home))["steps"]}
            return sum(steps[name] for name in CALLS) / len(CALLS)

    def bare() -> float:
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            raw, features = f"{folder}/raw", f"{folder}/features"
            paths = {"ingest": {"out": raw}, "preprocess": {"raw": raw, "out": features}}
            calls = [call.format(**{**values, **paths[name]}) for name, call in CALLS.items()]
            return statistics.mean(time_command([sys.executable, "-c", call]) for call in calls)

    seconds = measure_medians(ROUNDS, {"run": in_run, "bare": bare})
    overhead = (seconds["run"] - seconds["bare"]) * 1000
    return make_result("overhead per step", overhead, 15, "ms", "<= 15 ms")


def measure_help() -> Result:
    """Measure the time of `modelyard --help`."""
    seconds = measure_medians(5, {"help": lambda: time_command([MODELYARD, "--help"])})
    return make_result("modelyard --help", seconds["help"], 0.08, "s", "<= 0.08 s")


def main() -> None:
    """Measure everything and print it."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has bytecode
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        results = [
            measure_help(),
            measure_step_overhead(scratch),
            measure_rerun(scratch),
            measure_first_run(scratch),
            training.examples_per_second()[0],
        ]
    print_results("the whole flow", results)


if __name__ == "__main__":
    main()
