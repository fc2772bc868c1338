"""How a run ended and why, in a paragraph: the value that the artifact, the webhook and the command show."""

from dataclasses import asdict, dataclass
from typing import Literal

State = Literal["running", "succeeded", "failed", "cancelled"]


@dataclass(frozen=True)
class Explanation:
    """How a run ended.

    `step` is the one that failed, or that is at work or stuck; None when it is none in particular. `text` is
    the paragraph.
    """

    run: str
    model: str | None
    state: State
    step: str | None
    text: str

    def json(self) -> dict[str, str | None]:
        """Return it as JSON; `text` comes first, which is the part that chats show."""
        return {"text": self.text, **asdict(self)}


def failed(run: str, model: str | None, step: str | None, cause: str) -> Explanation:
    """Return that a run failed.

    Args:
        run: its name.
        model: the model's name, if it is known.
        step: the step that failed.
        cause: a paragraph: why, and what to do.
    """
    where = f" in the step {step}" if step else ""
    if cause.startswith(itself := f"The step {step} "):
        cause = f"it {cause.removeprefix(itself)}"
    return Explanation(run, model, "failed", step, f"{_name(run, model)} failed{where}: {cause}")


def succeeded(run: str, model: str | None, decision: str | None) -> Explanation:
    """Return that a run succeeded.

    Args:
        run: its name.
        model: the model's name, if it is known.
        decision: what was decided, and why; None when nobody said so.
    """
    what = f": {decision}" if decision else ", and nothing was put before clients"
    return Explanation(run, model, "succeeded", None, f"{_name(run, model)} succeeded{what}.")


def cancelled(run: str, model: str | None, step: str | None, by: str) -> Explanation:
    """Return that a run was ended from outside.

    Args:
        run: its name.
        model: the model's name, if it is known.
        step: the step that was at work.
        by: what ended it, and what to do.
    """
    when = f" during the step {step}" if step else ""
    return Explanation(run, model, "cancelled", step, f"{_name(run, model)} was cancelled{when}: {by}")


def running(run: str, model: str | None, step: str | None, trouble: str | None) -> Explanation:
    """Return that a run has not ended.

    Args:
        run: its name.
        model: the model's name, if it is known.
        step: the step that is at work.
        trouble: what keeps it from working.
    """
    what = f": {step} is at work" if step else ""
    what = f": the step {step} waits. {trouble}" if trouble else f"{what}."
    return Explanation(run, model, "running", step, f"{_name(run, model)} is running{what}")


def _name(run: str, model: str | None) -> str:
    return f"The run {run} of {model}" if model else f"The run {run}"
