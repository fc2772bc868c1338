"""The input of the step `ingest`."""

from pydantic import Field

from modelyard.components.settings import Spec
from modelyard.components.source.settings import KINDS, Source


class IngestSpec(Spec):
    """The source of the examples and their format."""

    source: Source = Field(description="The data to fetch and decode.")

    def modules(self) -> tuple[str, ...]:
        """Return the module of the reader."""
        return (f"{__package__}.{KINDS[self.source.kind].reader}",)
