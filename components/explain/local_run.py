"""A run that this machine leads: how it ended, from the records of its steps in its folder."""

import os
from pathlib import Path

from modelyard.components.explain.explanation import EXIT_TASK, Explanation, explanation
from modelyard.components.records import RUN_FOLDER, Failure


def run_folder() -> Path | None:
    """Return the folder of the run that this process belongs to, if this machine leads it."""
    path = os.environ.get(RUN_FOLDER)
    return Path(path) if path else None


def explain(run: Path, model: str, succeeded: bool, decided: str) -> Explanation:
    """Return how a run ended whose exit task is running.

    Args:
        run: the run's folder.
        model: the model's name.
        succeeded: whether no step failed.
        decided: what it decided, and why.
    """
    if succeeded:
        return explanation(run.name, model, "succeeded", None, decided)
    if found := failure(run):
        return explanation(run.name, model, "failed", found.step, found.message, found.kind)
    return explanation(run.name, model, "failed", None, "no step started.")


def failure_file(run: Path, step: str) -> Path:
    """Return the file for the record of a step's failure; empty while there is none."""
    return run / "failures" / f"{step}.json"


def failure(run: Path) -> Failure | None:
    """Return why a run failed, or None; how the exit task ended does not count."""
    files = [path for path in (run / "failures").glob("*.json") if path.stem != EXIT_TASK]
    files.sort(key=lambda path: path.stat().st_mtime_ns)
    return next(filter(None, (Failure.parse(path.read_bytes()) for path in files)), None)


def log_of(run: Path, step: str) -> list[str]:
    """Return the log of a step; empty when it did not run."""
    path = run / "logs" / f"{step}.log"
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
