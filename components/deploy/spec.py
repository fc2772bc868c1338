"""The input of the step `deploy`."""

from typing import Any

from pydantic import Field

from modelyard.components.deploy.settings import PLATFORMS, Rollout, Target
from modelyard.components.settings import Spec
from modelyard.components.store.settings import Store


class DeploySpec(Spec):
    """What is published, and how and where it is rolled out."""

    name: str = Field(description="The model's name.")
    store: Store = Field(description="The store of the version.")
    rollout: Rollout = Field(description="How the version is rolled out.")
    target: Target = Field(description="Where the server runs.")
    serving: dict[str, Any] = Field(description="The section `serving`.")
    config: dict[str, Any] = Field(description="The effective configuration, for the manifest.")
    recipe_sha256: str = Field(description="Fingerprint of the recipe.")
    code_sha256: str = Field(default="", description="Fingerprint of the user's own model code.")

    def modules(self) -> tuple[str, ...]:
        """Return the module of the serving platform."""
        return (PLATFORMS[self.target.platform].partition(":")[0],)
