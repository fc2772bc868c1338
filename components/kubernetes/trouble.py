"""What keeps a pod from running, in a sentence, and whether waiting helps."""

from typing import Any

from modelyard.components.artifacts import Record

Json = dict[str, Any]
"""An object as the API server gives it."""


class Trouble(Record):
    """What keeps a pod from running.

    `reason` is one word for programs, `message` a paragraph for people. `patience` is how long waiting may
    help, in seconds: 0 when it does not, None when only the caller can say.
    """

    reason: str
    message: str
    patience: float | None = None
