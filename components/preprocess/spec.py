"""What the step `preprocess` is told."""

from pydantic import Field

from modelyard.components import problems
from modelyard.components.preprocess.settings import Preparation
from modelyard.components.settings import Spec


class PreprocessSpec(Spec):
    """How the examples are split and normalised."""

    preparation: Preparation = Field(description="How the examples are split and normalised.")
    problem: str = Field(default="classification", description="The kind of target.")
    named_slices: tuple[str, ...] = Field(
        default=(), description="Names of classes that the gate has rules for."
    )

    def modules(self) -> tuple[str, ...]:
        """Return the problem."""
        return (problems.module(self.problem),)
