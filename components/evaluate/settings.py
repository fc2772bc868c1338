"""`gate`: what a candidate must reach to be promoted."""

from pydantic import Field

from modelyard.components.settings import Settings


class Gate(Settings):
    """What a candidate must reach to be promoted."""

    floor: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Least test accuracy; a candidate below it is rejected, champion or not.",
    )
    min_gain: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Least gain in test accuracy over the champion; without any gain a candidate is held.",
    )
