"""The base classes of the sections of the configuration and of the specs of steps.

A section is a small frozen model, checked where it enters. Each key is documented once, in its `Field`;
the reference (docs/config.md) and the JSON Schema are made from there. A step's spec is composed of sections.
"""

import json
from typing import Self

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A section: frozen, strict about types, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    def to_json(self) -> str:
        """Return the section as JSON; equal sections give equal text."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the section in a JSON text from `to_json`."""
        return cls.model_validate_json(text)


class Spec(Settings):
    """The input of a step: the settings that decide its result, as one JSON text that enters its cache key.

    The compiler fills each field by its name, with a section of the configuration or with what it derives
    from the configuration and the environment (`modelyard.pipelines.compile.compiler.create_specs`).
    """

    def modules(self) -> tuple[str, ...]:
        """Return the modules that the step imports by name because of these settings.

        No import statement names them, so the fingerprint of the step's code would not cover them.
        """
        return ()
