"""How a run ended and why, as a paragraph for the artifact, the webhook and the command `explain`."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

State = Literal["running", "succeeded", "failed", "cancelled"]
PHRASES = {
    "running": ("is running", "the step"),
    "succeeded": ("succeeded", "after the step"),
    "failed": ("failed", "in the step"),
    "cancelled": ("was cancelled", "during the step"),
}
EXIT_TASK = "explain"
QUOTED_LINES = 5
# Empty lines, events, and the lines of KFP's executor and launcher and of Argo, by their prefixes; also lines
# that TensorFlow logs at its start whatever its log level, except fatal ones.
_SYSTEM_LINE = re.compile(
    r"\[KFP Executor|\{\"event\":|time=|(?!F0000)[IWEF]\d{4} \d\d:\d\d:\d\d|Error: exit status \d+$|\s*$"
    r"|WARNING: All log messages before absl::InitializeLog\(\)"
)
_JSON_START = re.compile(r"(?:\[KFP Executor|[IWEF]\d{4} ).*(?:Got executor_input:|\{)$")  # of several lines


@dataclass(frozen=True)
class Explanation:
    """How a run ended; `text` is the paragraph.

    `step` is the step that failed, is running or cannot start, `kind` the class of its error. Unknown values
    are None.
    """

    run: str
    model: str | None
    state: State
    step: str | None
    kind: str | None
    text: str

    def json(self) -> dict[str, str | None]:
        """Return the fields as JSON; `text` is first, because chat programs show it."""
        return {"text": self.text, **asdict(self)}


def create_explanation(
    run: str, model: str | None, state: State, step: str | None, reason: str = "", kind: str | None = None
) -> Explanation:
    """Return how a run ended; `reason` is the error with its remedy, or the decision. See Explanation."""
    name = f"The run {run} of {model}" if model else f"The run {run}"
    phrase, step_phrase = PHRASES[state]
    subject = f"{name} {phrase} {step_phrase} {step}" if step else f"{name} {phrase}"
    text = f"{subject}: {reason}" if reason else subject
    return Explanation(run, model, state, step, kind, text if text.endswith(".") else f"{text}.")


def describe_decision(decision: str, reason: str) -> str:
    """Return a decision with its reason, as `create_explanation` takes it."""
    return f"{decision}, because {reason}"


def step_lines(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a log that the step itself wrote."""
    within_json = False
    for line in lines:
        if within_json:
            within_json = line != "}"
        elif _JSON_START.match(line):
            within_json = True
        elif not _SYSTEM_LINE.match(line):
            yield line


def last_line(lines: Iterable[str]) -> str:
    """Return the last line that the step itself wrote; empty if there is none."""
    return next(reversed(list(step_lines(lines))), "")


def quote_end(lines: Sequence[str]) -> str:
    """Return the last lines of a log: those that the step itself wrote or, without any, the last of all."""
    last = list(step_lines(lines))[-QUOTED_LINES:] or [line for line in lines if line.strip()][-QUOTED_LINES:]
    return "\n".join(["The last lines of its log:", *last]) if last else "It wrote no log."
