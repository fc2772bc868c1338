"""The input of the step `evaluate`."""

from pydantic import Field

from modelyard.components import problems
from modelyard.components.evaluate.gate import Gate
from modelyard.components.settings import Spec
from modelyard.components.store.settings import Store


class EvaluateSpec(Spec):
    """The model, its gate and its store."""

    name: str = Field(description="The model's name.")
    gate: Gate | None = Field(
        default=None, description="The rules for promotion; null promotes every candidate."
    )
    store: Store = Field(description="The store with the champion.")
    problem: str = Field(default="classification", description="The kind of prediction.")
    fail_on_champion_leakage: bool = Field(
        default=False, description="Fail when the champion was trained on test examples."
    )

    def modules(self) -> tuple[str, ...]:
        """Return the module of the problem."""
        return (problems.module_name(self.problem),)
