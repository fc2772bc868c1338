"""`retention`: what `modelyard gc` keeps."""

from pydantic import Field

from modelyard.components.settings import Settings
from modelyard.pipelines.config.schedule import DURATION


class Retention(Settings):
    """What `modelyard gc` keeps, beside what is in use. It does not belong to what identifies a run."""

    versions: int = Field(
        default=10,
        ge=0,
        description="Latest versions of the model, beside the champion, the one before it, and those that "
        "servers or runs use.",
    )
    runs: int = Field(default=20, ge=0, description="Latest runs, with their records and artifacts.")
    younger_than: str = Field(
        default="30d", pattern=DURATION, description="Everything younger than this, as 12h, 30d or 8w."
    )
