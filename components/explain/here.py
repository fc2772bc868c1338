"""A run that this machine leads: its steps' logs say how it ended."""

import os
from pathlib import Path

from modelyard.components.errors import ModelyardError
from modelyard.components.explain import words
from modelyard.components.explain.explanation import Explanation, failed, succeeded

VARIABLE = "MODELYARD_RUN"
"""Names the run's folder, for its exit task."""


def folder() -> Path | None:
    """Return the folder of the run that this process belongs to, if this machine leads it."""
    path = os.environ.get(VARIABLE)
    return Path(path) if path else None


def explain(run: Path, model: str, ended_well: bool) -> Explanation:
    """Return how a run ended whose exit task is at work.

    Args:
        run: the run's folder.
        model: the model's name.
        ended_well: whether no step failed.
    """
    if ended_well:
        return succeeded(run.name, model, words.decision(lambda step: lines(run, step)))
    step = last_step(run)
    return failed(run.name, model, step, str(cause(run, step)) if step else "no step was started.")


def lines(run: Path, step: str) -> list[str]:
    """Return what a step of a run wrote; nothing when it did not run."""
    path = run / "logs" / f"{step}.log"
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []


def last_step(run: Path) -> str | None:
    """Return the step that was started last: the one that failed, if one did. The exit task is none."""
    logs = [path for path in (run / "logs").glob("*.log") if path.stem != "explain"]
    return max(logs, key=lambda path: path.stat().st_mtime_ns).stem if logs else None


def cause(run: Path, step: str) -> ModelyardError:
    """Make the error again that a step ended with."""
    said = lines(run, step)
    if words.no_room(said):
        return ModelyardError(
            f"The step {step} found no room on the disk of {run}. Make room, or set MODELYARD_HOME to a "
            "folder on another disk."
        )
    if known := words.error_in(said):
        return known
    if words.silent(said):
        return ModelyardError(
            f"The step {step} ended unexpectedly and left no message: it was killed. If nobody did that, "
            "the machine has too little memory for it: lower the sizes in `model` or "
            "training.batch_size, or use a larger machine."
        )
    return ModelyardError(f"The step {step} ended unexpectedly: {words.last_words(said)}")
