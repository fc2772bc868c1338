"""What the step `ingest` is told."""

from pydantic import Field

from modelyard.components.settings import Spec
from modelyard.components.source.settings import KINDS, Source


class IngestSpec(Spec):
    """Where the examples come from and what they are."""

    source: Source = Field(description="The data to fetch and decode.")

    def modules(self) -> tuple[str, ...]:
        """Return the reader."""
        return (f"{__package__}.{KINDS[self.source.kind].reader}",)
