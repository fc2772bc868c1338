"""A run that this machine leads: its steps' logs say how it ended."""

import json
import os
from pathlib import Path

from modelyard.components.errors import ModelyardError, from_log
from modelyard.components.explain.explanation import (
    Explanation,
    decision,
    explanation,
    has_traceback,
    quote_end,
)

VARIABLE = "MODELYARD_RUN"
"""Names the run's folder, for its exit task."""
UNCHANGED = "unchanged"  # artifacts.UNCHANGED, whose import takes longer than the rest of this step


def run_folder() -> Path | None:
    """Return the folder of the run that this process belongs to, if this machine leads it."""
    path = os.environ.get(VARIABLE)
    return Path(path) if path else None


def explain(run: Path, model: str, succeeded: bool) -> Explanation:
    """Return how a run ended whose exit task is running.

    Args:
        run: the run's folder.
        model: the model's name.
        succeeded: whether no step failed.
    """
    if succeeded:
        decided = decision(lambda step: log_of(run, step), _unchanged(run))
        return explanation(run.name, model, "succeeded", None, decided)
    step = last_step(run)
    return explanation(
        run.name, model, "failed", step, str(failure(run, step)) if step else "no step started."
    )


def _unchanged(run: Path) -> bool:
    """Say whether fingerprint ended the run because nothing is new."""
    outputs = (
        json.loads(path.read_bytes()) for path in run.glob("artifacts/*/fingerprint/executor_output.json")
    )
    return any(found.get("parameterValues", {}).get("Output") == UNCHANGED for found in outputs)


def log_of(run: Path, step: str) -> list[str]:
    """Return the log of a step; empty when it did not run."""
    path = run / "logs" / f"{step}.log"
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []


def last_step(run: Path) -> str | None:
    """Return the step that started last: the one that failed, if one did. The exit task is none."""
    logs = [path for path in (run / "logs").glob("*.log") if path.stem != "explain"]
    return max(logs, key=lambda path: path.stat().st_mtime_ns).stem if logs else None


def failure(run: Path, step: str) -> ModelyardError:
    """Return the error that a step ended with."""
    lines = log_of(run, step)
    if known := from_log(lines):
        return known
    why = (
        " without an error: it was killed. If no user did that, the machine has too little memory: lower the "
        "sizes in `model` or training.batch_size, or use a larger machine"
        if not has_traceback(lines)
        else ""
    )
    return ModelyardError(f"The step {step} ended unexpectedly{why}. {quote_end(lines)}")
