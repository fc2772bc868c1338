"""The base of every section of the configuration, and how a section travels to its step.

A section is a small frozen model, checked where it enters. Each key is documented once, in its `Field`;
the reference (docs/config.md) and the JSON Schema are made from there.
"""

import json
from typing import Self

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A section: frozen, strict about types, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    def text(self) -> str:
        """Return the section as the one JSON text that is passed to a step and enters its cache key."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    @classmethod
    def of(cls, text: str) -> Self:
        """Return the section that `text` holds; the opposite of `text()`."""
        return cls.model_validate_json(text)
