"""The part of the section `data` with the settings of the step `preprocess`."""

from typing import Literal

from pydantic import Field, field_validator

from modelyard.components.settings import Settings


class Preparation(Settings):
    """How the examples are checked, split and normalized."""

    validation: float | int | Literal["test"] = Field(
        default=0.1,
        description="Training examples to hold out for validation, selected by content hash: a share (0.1) "
        "or a number (5000). `test` validates on the test examples, as tutorials do; the test metrics are "
        "then biased, so early stopping and the gate must be off.",
    )
    test: float | int = Field(
        default=0.2,
        description="Examples to hold out for the test, selected by content hash: a share or a number, with "
        "at least 10 of each class, or half of a class with fewer than 20. Ignored if the source has a test "
        "split.",
    )
    normalize: Literal["scale", "standardize", "none"] = Field(
        default="scale",
        description="scale: divide by data.scale; standardize: subtract the mean and divide by the standard "
        "deviation of the training examples, per channel; none. Part of the exported model.",
    )
    scale: float | None = Field(
        default=None,
        gt=0,
        description="Divisor of `scale`. Default: 255 for images from files; for other data the largest "
        "magnitude of the training values, rounded up to 1, or to 255 or 65535 if that at most doubles it. "
        "The log and the report show it.",
    )
    fail_on: list[Literal["duplicates", "conflicting_labels", "leakage", "champion_leakage"]] = Field(
        default_factory=list,
        description="Findings that end the run instead of only being counted in the report: duplicates: "
        "examples that repeat an earlier one; conflicting_labels: the same example with two labels; "
        "leakage: test examples that are also training examples; champion_leakage: test examples that the "
        "champion was trained on.",
    )

    @field_validator("validation", "test")
    @classmethod
    def _amount(cls, amount: float | str) -> float | str:
        if isinstance(amount, int) and amount < 1:
            raise ValueError(f"{amount} examples are too few: set a share (0.1) or at least 1 example")
        if isinstance(amount, float) and not 0 < amount < 1:
            raise ValueError(
                f"{amount} is not a share: set one between 0 and 1, or a whole number of examples"
            )
        return amount
