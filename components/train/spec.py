"""What the step `train` is told."""

from pydantic import Field

from modelyard.components import problems
from modelyard.components.settings import Spec
from modelyard.components.store.settings import Store
from modelyard.components.train.settings import CodeLocation, Model, Training


class TrainSpec(Spec):
    """Which model is fitted, how, and where its checkpoints are."""

    model: Model = Field(default=Model(), description="What is trained.")
    training: Training = Field(default=Training(), description="How it is fitted.")
    code: CodeLocation | None = Field(
        default=None, description="Where the user's own code is; null without any."
    )
    code_sha256: str = Field(
        default="", description="Its fingerprint, checked before it is imported; empty without any."
    )
    store: Store | None = Field(default=None, description="Where checkpoints are; null for none.")
    problem: str = Field(default="classification", description="The kind of target.")

    def modules(self) -> tuple[str, ...]:
        """Return the problem."""
        return (problems.module(self.problem),)
