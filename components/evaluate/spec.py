"""What the step `evaluate` is told."""

from pydantic import Field

from modelyard.components import problems
from modelyard.components.evaluate.gate import Gate
from modelyard.components.settings import Spec
from modelyard.components.store.settings import Store


class EvaluateSpec(Spec):
    """Which model's champion the candidate is compared with, and what it must reach."""

    name: str = Field(description="The model's name.")
    gate: Gate | None = Field(
        default=None, description="What a candidate must reach; null promotes every candidate."
    )
    store: Store = Field(description="Where the champion is.")
    problem: str = Field(default="classification", description="The kind of target.")
    fail_on_champion_leakage: bool = Field(
        default=False, description="Fail when the champion was trained on test rows."
    )

    def modules(self) -> tuple[str, ...]:
        """Return the problem."""
        return (problems.module(self.problem),)
