"""How a run ended and why, in a paragraph: the value that the artifact, the webhook and the command show.

The lines that a step itself wrote are quoted; nothing is concluded from what they say.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

State = Literal["running", "succeeded", "failed", "cancelled"]
WORDS = {
    "running": ("is running", "the step"),
    "succeeded": ("succeeded", "after the step"),
    "failed": ("failed", "in the step"),
    "cancelled": ("was cancelled", "during the step"),
}
EXIT_TASK = "explain"
LAST = 5  # lines of a log that are quoted
# Empty lines, events, and the lines of KFP's executor and launcher and of Argo, by their prefixes; also those
# of TensorFlow's start, which its level of logging does not stop. Its fatal ones stay.
_FRAMING = re.compile(
    r"\[KFP Executor|\{\"event\":|time=|(?!F0000)[IWEF]\d{4} \d\d:\d\d:\d\d|Error: exit status \d+$|\s*$"
    r"|WARNING: All log messages before absl::InitializeLog\(\)"
)
_DUMP = re.compile(
    r"(?:\[KFP Executor|[IWEF]\d{4} ).*(?:Got executor_input:|\{)$"
)  # before JSON on many lines


@dataclass(frozen=True)
class Explanation:
    """How a run ended.

    `model` is the model's name, if it is known; `step` the step that failed, that is running, or that cannot
    start; `kind` the class of its error. `text` is the paragraph.
    """

    run: str
    model: str | None
    state: State
    step: str | None
    kind: str | None
    text: str

    def json(self) -> dict[str, str | None]:
        """Return it as JSON; `text` comes first, which is the part that chats show."""
        return {"text": self.text, **asdict(self)}


def explanation(
    run: str, model: str | None, state: State, step: str | None, reason: str = "", kind: str | None = None
) -> Explanation:
    """Return how a run ended.

    Args:
        run: its name.
        model: the model's name, if it is known.
        state: its state.
        step: the step in question, if there is one.
        reason: why, and what to do; or what was decided.
        kind: the class of the error, if there is one.
    """
    name = f"The run {run} of {model}" if model else f"The run {run}"
    verb, where = WORDS[state]
    what = f"{name} {verb} {where} {step}" if step else f"{name} {verb}"
    return Explanation(run, model, state, step, kind, f"{what}: {reason}" if reason else f"{what}.")


def step_lines(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a log that the step itself wrote, as they come."""
    within_json = False
    for line in lines:
        if within_json:
            within_json = line != "}"
        elif _DUMP.match(line):
            within_json = True
        elif not _FRAMING.match(line):
            yield line


def last_line(lines: Iterable[str]) -> str:
    """Return the last line that the step itself wrote; empty if it wrote none."""
    return next(reversed(list(step_lines(lines))), "")


def quote_end(lines: Sequence[str]) -> str:
    """Return the last lines of a log verbatim: the step's own, or, if it wrote none, those around them."""
    last = list(step_lines(lines))[-LAST:] or [line for line in lines if line.strip()][-LAST:]
    return "\n".join(["Its log ends:", *last]) if last else "It wrote no log."
