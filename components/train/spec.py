"""The input of the step `train`."""

from pydantic import Field

from modelyard.components import problems
from modelyard.components.settings import Spec
from modelyard.components.store.settings import Store
from modelyard.components.train.settings import CodeLocation, Model, Training


class TrainSpec(Spec):
    """The model, the training settings and the checkpoint store."""

    model: Model = Field(default=Model(), description="The model to train.")
    training: Training = Field(default=Training(), description="The training settings.")
    code: CodeLocation | None = Field(
        default=None, description="Location of the user's code; null without user code."
    )
    code_sha256: str = Field(
        default="", description="Fingerprint of the user's code, checked before its import."
    )
    store: Store | None = Field(default=None, description="Store of the checkpoints; null for none.")
    problem: str = Field(default="classification", description="The kind of prediction.")

    def modules(self) -> tuple[str, ...]:
        """Return the module of the problem."""
        return (problems.module_name(self.problem),)
