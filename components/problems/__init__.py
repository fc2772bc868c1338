"""The problems: what depends on the kind of target that a model predicts, and on nothing else.

    describe("regression").metrics        known to every process: names, directions, how an answer is shown
    of("regression").measure(...)         what the steps compute with; imports numpy

This is the registry. A problem is a row here, a module that subclasses `Problem`, and a template of the
report (components/report/<name>.html); docs/extending.md takes the walk. A run's leading process, fingerprint
and deploy have no numpy: they use `describe` alone.
"""

from importlib import import_module
from math import inf
from typing import TYPE_CHECKING

from modelyard.components.errors import ConfigError
from modelyard.components.problems.base import Description, show_likeliest, show_values

if TYPE_CHECKING:
    from modelyard.components.problems.base import Problem

PROBLEMS = {
    "classification": Description(
        metrics={
            "accuracy": "higher",
            "balanced_accuracy": "higher",
            "macro_f1": "higher",
            "log_loss": "lower",
            "calibration_error": "lower",
        },
        primary="accuracy",
        compared=("balanced_accuracy", "accuracy", "recall"),
        ranges={
            **dict.fromkeys(("accuracy", "balanced_accuracy", "macro_f1", "calibration_error"), (0, 1)),
            **dict.fromkeys(("recall", "precision", "f1"), (0, 1)),
            "log_loss": (0, inf),
        },
        slice_metrics=("recall", "precision", "f1"),
        monitors={"accuracy": "higher"},
        losses=(
            "SparseCategoricalCrossentropy",
            "CategoricalCrossentropy",
            "CategoricalFocalCrossentropy",
            "CategoricalGeneralizedCrossEntropy",
            "CategoricalHinge",
            "KLDivergence",
            "MeanSquaredError",
        ),
        training_metrics={
            "AUC": "higher",
            "CategoricalAccuracy": "higher",
            "CategoricalCrossentropy": "lower",
            "CategoricalHinge": "lower",
            "F1Score": "higher",
            "FBetaScore": "higher",
            "KLDivergence": "lower",
            "MeanSquaredError": "lower",
            "Precision": "higher",
            "PrecisionAtRecall": "higher",
            "Recall": "higher",
            "RecallAtPrecision": "higher",
            "RootMeanSquaredError": "lower",
            "SensitivityAtSpecificity": "higher",
            "SparseCategoricalAccuracy": "higher",
            "SparseCategoricalCrossentropy": "lower",
            "SparseTopKCategoricalAccuracy": "higher",
            "SpecificityAtSensitivity": "higher",
            "TopKCategoricalAccuracy": "higher",
        },
        output="probabilities",
        meaning="probability of each class",
        size="classes",
        show=show_likeliest,
        logits=True,
        class_weights=True,
        ranked=True,
    ),
    "regression": Description(
        metrics={"rmse": "lower", "mae": "lower", "r2": "higher"},
        primary="rmse",
        compared=("rmse", "mae"),
        ranges={"rmse": (0, inf), "mae": (0, inf), "r2": (-inf, 1)},
        monitors={"mae": "lower", "rmse": "lower"},
        losses=(
            "MeanSquaredError",
            "Huber",
            "LogCosh",
            "MeanAbsoluteError",
            "MeanAbsolutePercentageError",
            "MeanSquaredLogarithmicError",
        ),
        training_metrics={
            "LogCoshError": "lower",
            "MeanAbsoluteError": "lower",
            "MeanAbsolutePercentageError": "lower",
            "MeanSquaredError": "lower",
            "MeanSquaredLogarithmicError": "lower",
            "R2Score": "higher",
            "RootMeanSquaredError": "lower",
        },
        output="predictions",
        meaning="value of each target",
        size="targets",
        show=show_values,
    ),
}


def describe(name: str) -> Description:
    """Return what is known of a problem without numpy.

    Raises:
        ConfigError: there is no such problem.
    """
    if name not in PROBLEMS:
        raise ConfigError(f"{name!r} is not a problem; the problems are {', '.join(PROBLEMS)}.")
    return PROBLEMS[name]


def of(name: str) -> "Problem":
    """Return a problem.

    Raises:
        ConfigError: there is no such problem.
    """
    problem: Problem = import_module(module(name)).PROBLEM
    return problem


def module(name: str) -> str:
    """Return the module of a problem, for fingerprints of the code that a step uses."""
    describe(name)
    return f"{__name__}.{name}"
