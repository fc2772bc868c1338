"""`data`, the part that says how the examples are checked, split and normalised."""

from typing import Literal

from pydantic import Field, field_validator

from modelyard.components.settings import Settings


class Preparation(Settings):
    """How the examples are split and normalised."""

    validation: float | int | Literal["test"] = Field(
        default=0.1,
        description="Rows of the training part held out for validation, chosen by content hash: a share "
        "(0.1) or a number (5000). `test` validates on the test rows, as tutorials do; the test "
        "accuracy is then no longer honest, so early stopping and the gate must be off.",
    )
    test: float | int = Field(
        default=0.2,
        description="Rows held out for the test, a share or a number, chosen by content hash, of each class "
        "at least 10, or half of a class with fewer than 20; not used when the source has a test part.",
    )
    normalize: Literal["scale", "standardize", "none"] = Field(
        default="scale",
        description="scale: divide by data.scale; standardize: subtract the mean and divide by the deviation "
        "of the training rows, per channel; none. Becomes part of the exported model.",
    )
    scale: float | None = Field(
        default=None,
        gt=0,
        description="What `scale` divides by. Default: 255 for images from files; for other data the "
        "largest magnitude of the training values, rounded up to 1, or to 255 or 65535 where that at most "
        "doubles it. The log and the report say which.",
    )
    fail_on: list[Literal["duplicates", "conflicting_labels", "leakage", "champion_leakage"]] = Field(
        default_factory=list,
        description="What ends the run instead of only being counted in the report: duplicates: rows that "
        "repeat an earlier one; conflicting_labels: the same example under two labels; leakage: test rows "
        "that are training rows too; champion_leakage: test rows that the champion was trained on.",
    )

    @field_validator("validation", "test")
    @classmethod
    def _amount(cls, amount: float | str) -> float | str:
        if isinstance(amount, int) and amount < 1:
            raise ValueError(f"{amount} rows are none: give a share (0.1) or at least 1 row")
        if isinstance(amount, float) and not 0 < amount < 1:
            raise ValueError(f"{amount} is no share: give one between 0 and 1, or a whole number of rows")
        return amount
