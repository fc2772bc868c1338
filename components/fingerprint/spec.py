"""The input of the step `fingerprint`."""

from pydantic import Field

from modelyard.components.settings import Spec
from modelyard.components.source.settings import Source
from modelyard.components.store.settings import Store


class FingerprintSpec(Spec):
    """The data, the model, and the fingerprint of configuration and code."""

    name: str = Field(description="The model's name.")
    source: Source = Field(description="The data to identify.")
    store: Store = Field(description="The store with the champion.")
    recipe_sha256: str = Field(
        description="Fingerprint of the configuration and the code that decide the result."
    )
    root: str = Field(
        default="",
        description="The pipeline root, so that cached artifacts of another root are not used; empty for "
        "local runs, whose cache has one root.",
    )
