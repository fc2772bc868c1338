"""How a run ended and why, in a paragraph: the value that the artifact, the webhook and the command show."""

from dataclasses import asdict, dataclass
from typing import Literal

State = Literal["running", "succeeded", "failed", "cancelled"]
WORDS = {
    "running": ("is running", "the step"),
    "succeeded": ("succeeded", "after the step"),
    "failed": ("failed", "in the step"),
    "cancelled": ("was cancelled", "during the step"),
}


@dataclass(frozen=True)
class Explanation:
    """How a run ended.

    `model` is the model's name, if it is known; `step` the step that failed, that is running, or that cannot
    start. `text` is the paragraph.
    """

    run: str
    model: str | None
    state: State
    step: str | None
    text: str

    def json(self) -> dict[str, str | None]:
        """Return it as JSON; `text` comes first, which is the part that chats show."""
        return {"text": self.text, **asdict(self)}


def explanation(run: str, model: str | None, state: State, step: str | None, reason: str = "") -> Explanation:
    """Return how a run ended.

    Args:
        run: its name.
        model: the model's name, if it is known.
        state: its state.
        step: the step in question, if there is one.
        reason: why, and what to do; or what was decided.
    """
    name = f"The run {run} of {model}" if model else f"The run {run}"
    verb, where = WORDS[state]
    what = f"{name} {verb} {where} {step}" if step else f"{name} {verb}"
    return Explanation(run, model, state, step, f"{what}: {reason}" if reason else f"{what}.")
