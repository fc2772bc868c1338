"""The input of the step `preprocess`."""

from pydantic import Field

from modelyard.components import problems
from modelyard.components.preprocess.settings import Preparation
from modelyard.components.settings import Spec


class PreprocessSpec(Spec):
    """The settings of preprocess, the problem, and the classes that the configuration names."""

    preparation: Preparation = Field(description="How the examples are split and normalized.")
    problem: str = Field(default="classification", description="The kind of prediction.")
    named_slices: tuple[str, ...] = Field(default=(), description="Classes for which the gate has rules.")
    weighted_slices: tuple[str, ...] = Field(
        default=(), description="Classes with a weight in training.class_weights."
    )

    def modules(self) -> tuple[str, ...]:
        """Return the module of the problem."""
        return (problems.module_name(self.problem),)
