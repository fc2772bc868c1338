"""How a run on this machine ended, from the records of its steps in the run folder."""

import os
from pathlib import Path

from modelyard.components.explain.explanation import EXIT_TASK, Explanation, create_explanation
from modelyard.components.records import RUN_FOLDER, Failure


def run_folder() -> Path | None:
    """Return the folder of the run of this process, or None on a cluster."""
    path = os.environ.get(RUN_FOLDER)
    return Path(path) if path else None


def explain(run: Path, model: str, succeeded: bool, decision: str) -> Explanation:
    """Return how the run in a folder ended; `decision` is the decision with its reason."""
    if succeeded:
        return create_explanation(run.name, model, "succeeded", None, decision)
    if failure := find_failure(run):
        return create_explanation(run.name, model, "failed", failure.step, failure.message, failure.kind)
    return create_explanation(run.name, model, "failed", None, "no step started.")


def failure_path(run: Path, step: str) -> Path:
    """Return the path of the failure record of a step; the file is empty without a failure."""
    return run / "failures" / f"{step}.json"


def find_failure(run: Path) -> Failure | None:
    """Return the first failure of a run, without the exit task; None if there is none."""
    files = [path for path in (run / "failures").glob("*.json") if path.stem != EXIT_TASK]
    files.sort(key=lambda path: path.stat().st_mtime_ns)
    return next(filter(None, (Failure.parse(path.read_bytes()) for path in files)), None)


def read_log(run: Path, step: str) -> list[str]:
    """Return the lines of a step's log; empty if it did not run."""
    path = run / "logs" / f"{step}.log"
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
