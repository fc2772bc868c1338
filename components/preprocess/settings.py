"""The part of the section `data` with the settings of the step `preprocess`."""

from typing import Literal

from pydantic import Field, field_validator

from modelyard.components.settings import Settings


class Preparation(Settings):
    """How the examples are checked, split and normalized."""

    validation: float | int | Literal["test"] = Field(
        default=0.1,
        description="Training examples to hold out for validation, selected by a hash of their content: a "
        "share (0.1) or a number (5000). `test` validates on the test examples, as many tutorials do; the "
        "test metrics are then biased, so early stopping and the gate must be off.",
    )
    test: float | int = Field(
        default=0.2,
        description="Examples to hold out for testing, selected by a hash of their content: a share (0.2) "
        "or a number (1000). At least 10 examples of each class are held out, or half of a class with fewer "
        "than 20. If the source has a test split, its examples are the test examples.",
    )
    normalize: Literal["scale", "standardize", "none"] = Field(
        default="scale",
        description="scale: divide by data.scale; standardize: subtract the mean and divide by the standard "
        "deviation of the training examples, per channel; none: do not normalize. The normalization is part "
        "of the exported model.",
    )
    scale: float | None = Field(
        default=None,
        gt=0,
        description="With normalize: scale, the divisor of the values. Default: 255 for images from files; "
        "for other data the largest magnitude of the training values, but 1 if it is below 1, 255 if it "
        "is between 127.5 and 255, and 65535 if it is between 32767.5 and 65535. The log and the report "
        "show the divisor.",
    )
    fail_on: list[Literal["duplicates", "conflicting_labels", "leakage", "champion_leakage"]] = Field(
        default_factory=list,
        description="Findings that fail the run; other findings are only shown in the report. duplicates: "
        "equal examples; conflicting_labels: equal examples with different labels; leakage: test examples "
        "that are also training examples; champion_leakage: test examples that the champion was trained "
        "on.",
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
