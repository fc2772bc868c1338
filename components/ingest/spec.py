"""What the step `ingest` is told."""

from pydantic import Field

from modelyard.components.settings import Spec
from modelyard.components.source.settings import Source


class IngestSpec(Spec):
    """Where the examples come from and what they are."""

    source: Source = Field(description="The data to fetch and decode.")
