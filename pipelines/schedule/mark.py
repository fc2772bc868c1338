"""How a schedule says that it is modelyard's, and of which model: a line in its description or comment.

Schedules without a mark are other people's and are never touched.
"""

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

SIGN = "modelyard.dev/schedule"


class Mark(BaseModel):
    """What a schedule is, as recorded in it; keys that a later modelyard adds are passed over.

    `sha256` is of all that the configuration asked for, but whether it is paused. `generation` grows with
    each replacement, so that of several the last one is known. `schedule` is the section, as written;
    `config` on this machine the file with the whole configuration.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    store: str
    sha256: str
    generation: int = 1
    schedule: dict[str, Any]
    config: str | None = None

    def text(self) -> str:
        """Return the line."""
        return f"{SIGN} {self.model_dump_json()}"


def find(text: str) -> Mark | None:
    """Return the mark in a text, or None: the text is not of modelyard."""
    found = re.search(rf"{re.escape(SIGN)} (\{{.*\}})", text)
    if not found:
        return None
    try:
        return Mark.model_validate_json(found[1])
    except ValidationError:
        return None
