"""The registry of problems: everything that depends on the kind of prediction.

    get_description("regression").metrics      names, directions and formats; does not import numpy
    get_problem("regression").measure(...)     the computations of the steps; imports numpy

A problem consists of an entry in PROBLEMS, a module with a subclass of `Problem`, and a template of the
report (components/report/<name>.html); see docs/extending.md. The CLI, fingerprint and deploy run without
numpy, so they use `get_description` only.
"""

from importlib import import_module
from math import inf
from typing import TYPE_CHECKING

from modelyard.components.errors import ConfigError
from modelyard.components.problems.base import Description, format_most_likely, format_numbers

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
        comparison_metrics=("balanced_accuracy", "accuracy", "recall"),
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
            **dict.fromkeys(("AUC", "F1Score", "FBetaScore", "Precision", "Recall"), "higher"),
            **dict.fromkeys(("PrecisionAtRecall", "RecallAtPrecision"), "higher"),
            **dict.fromkeys(("SensitivityAtSpecificity", "SpecificityAtSensitivity"), "higher"),
            **dict.fromkeys(("CategoricalAccuracy", "TopKCategoricalAccuracy"), "higher"),
            **dict.fromkeys(("SparseCategoricalAccuracy", "SparseTopKCategoricalAccuracy"), "higher"),
            **dict.fromkeys(("CategoricalCrossentropy", "SparseCategoricalCrossentropy"), "lower"),
            **dict.fromkeys(("CategoricalHinge", "KLDivergence"), "lower"),
            **dict.fromkeys(("MeanSquaredError", "RootMeanSquaredError"), "lower"),
        },
        output="probabilities",
        meaning="probability of each class",
        size_name="classes",
        format_prediction=format_most_likely,
        logits=True,
        class_weights=True,
        ranked=True,
    ),
    "regression": Description(
        metrics={"rmse": "lower", "mae": "lower", "r2": "higher"},
        primary="rmse",
        comparison_metrics=("rmse", "mae"),
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
        size_name="targets",
        format_prediction=format_numbers,
    ),
}


def get_description(name: str) -> Description:
    """Return the description of a problem; raise ConfigError if there is no such problem."""
    if name not in PROBLEMS:
        raise ConfigError(f"{name!r} is not a problem. Choose one of {', '.join(PROBLEMS)}.")
    return PROBLEMS[name]


def get_problem(name: str) -> "Problem":
    """Return a problem; raise ConfigError if there is no such problem."""
    problem: Problem = import_module(module_name(name)).PROBLEM
    return problem


def module_name(name: str) -> str:
    """Return the name of a problem's module, for the fingerprint of a step's code."""
    get_description(name)
    return f"{__name__}.{name}"
