"""The base classes of configuration sections and step specs.

Each key is documented in its `Field`, from which docs/config.md and the JSON Schema are generated. The spec
of a step consists of sections and single values.
"""

import json
from typing import Self

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A section: immutable, with strict types; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    def to_json(self) -> str:
        """Return the section as JSON; equal sections give equal text."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the section in a JSON text from `to_json`."""
        return cls.model_validate_json(text)


class Spec(Settings):
    """The settings that decide the result of a step; as JSON, they are a part of its cache key.

    The compiler sets each field by its name, to a section of the configuration or to a value that it derives
    from configuration and environment (`modelyard.pipelines.compile.compiler.create_specs`).
    """

    def modules(self) -> tuple[str, ...]:
        """Return the modules that the step imports dynamically, for the fingerprint of the step's code."""
        return ()
