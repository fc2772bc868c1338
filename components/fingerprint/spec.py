"""What the step `fingerprint` is told."""

from pydantic import Field

from modelyard.components.settings import Spec
from modelyard.components.source.settings import Source
from modelyard.components.store.settings import Store


class FingerprintSpec(Spec):
    """Which data and which model; and what identifies the configuration and the code."""

    name: str = Field(description="The model's name.")
    source: Source = Field(description="The data to identify.")
    store: Store = Field(description="Where the champion is.")
    recipe_sha256: str = Field(
        description="Fingerprint of the configuration and the code that decide the result."
    )
    root: str = Field(
        default="",
        description="The pipeline root, so that no run takes artifacts of another root from the cache; empty "
        "on this machine, whose cache has only one.",
    )
