"""Keras objects by name with arguments: checked without TensorFlow, before training."""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from modelyard.components import problems
from modelyard.components.artifacts import Normalization
from modelyard.components.errors import ConfigError, TrainError
from modelyard.components.train import keras_objects
from modelyard.components.train.backend import keras
from modelyard.components.train.keras_objects import KerasObject, metric_names
from modelyard.components.train.settings import Model, Training, check_keras_settings

LABELS = np.array([0, 2, 1, 1])
LOGITS = np.array([[3.0, 1, 0], [0, 1, 2], [1, 2, 0], [2, 0, 1]], np.float32)
REQUIRED_ARGUMENTS = {
    "sensitivity": 0.5,
    "specificity": 0.5,
    "recall": 0.5,
    "precision": 0.5,
    "average": "macro",
}
COSINE = {"name": "CosineDecay", "initial_learning_rate": 1, "decay_steps": 9}


def keras_object(kind: str, name: str, **arguments: Any) -> KerasObject:
    return KerasObject.from_setting(kind, {"name": name, **arguments}, "key")


def required_arguments(kind: str, name: str) -> dict[str, Any]:
    known = keras_objects.load_signatures()[kind][name]
    return {key: value for key, value in REQUIRED_ARGUMENTS.items() if key in known}


def learning_rate(value: Any, optimizer: str = "adam") -> dict[str, Any]:
    return {"optimizer": optimizer, "optimizer_settings": {"learning_rate": value}}


def optimizer_settings(**settings: Any) -> dict[str, Any]:
    return {"optimizer_settings": settings}


def test_signatures_match_keras() -> None:
    """`python -m modelyard.components.train.keras_objects` prints components/train/keras_signatures.json."""
    assert json.loads(json.dumps(keras_objects.inspect_signatures())) == keras_objects.load_signatures()


def test_settings_import_neither_keras_nor_numpy() -> None:
    code = (
        "import sys, modelyard.components.train.settings; "
        "sys.exit(bool({'keras', 'tensorflow', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("problem", problems.PROBLEMS)
def test_metric_directions_match_keras(problem: str) -> None:
    for name, direction in problems.get_description(problem).training_metrics.items():
        metric = keras_object("metrics", name, **required_arguments("metrics", name)).build()
        assert metric._direction == {"higher": "up", "lower": "down"}[direction], name


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("sgd", {"learning_rate": 0.5, "momentum": 0.9, "nesterov": True, "clipnorm": 1}),
        ("adam", {"learning_rate": 1, "weight_decay": None, "use_ema": True, "ema_overwrite_frequency": 10}),
        ("Muon", {"exclude_layers": ["classes"], "ns_steps": 3}),
        ("schedule_free_adamw", {"warmup_steps": 5, "gradient_accumulation_steps": 2}),
    ],
)
def test_optimizer_settings_are_passed_to_keras(name, settings) -> None:
    config = keras_object("optimizers", name, **settings).build().get_config()
    for key, value in settings.items():
        assert config[key] == pytest.approx(value), key


def test_a_learning_rate_schedule_is_passed_to_keras() -> None:
    arguments = {"initial_learning_rate": 0.5, "decay_steps": 10, "decay_rate": 0.1}
    optimizer_object = keras_object(
        "optimizers", "adam", learning_rate={"name": "ExponentialDecay", **arguments}
    )
    optimizer = optimizer_object.build()
    optimizer.iterations.assign(10)
    assert float(optimizer.learning_rate) == pytest.approx(0.05)
    schedule = {"class_name": "ExponentialDecay", "config": {**arguments, "staircase": False}}
    assert optimizer_object.config()["config"]["learning_rate"] == schedule


@pytest.mark.parametrize(
    ("training", "parts"),
    [
        ({"optimizer": "adm"}, ["training.optimizer is 'adm'", "Did you mean Adam"]),
        ({"optimizer": "zzz"}, ["training.optimizer is 'zzz'", "Choose one of Adadelta, "]),
        (optimizer_settings(lerning_rate=1), ["lerning_rate is not an argument", "mean learning_rate"]),
        (optimizer_settings(name="x"), ["optimizer_settings.name cannot be set"]),
        (learning_rate("fast"), ["is 'fast'", "a number above 0"]),
        (learning_rate(-1), ["is -1", "a number above 0"]),
        (learning_rate(True), ["is True", "a number above 0"]),
        (optimizer_settings(beta_1=None), ["is None", "a finite number"]),
        (optimizer_settings(epsilon=float("nan")), ["is nan", "a finite number"]),
        (optimizer_settings(amsgrad=1), ["is 1", "true or false"]),
        (optimizer_settings(gradient_accumulation_steps=2.5), ["is 2.5", "an integer"]),
        ({"optimizer": "muon"} | optimizer_settings(exclude_layers="dense"), ["a list of names"]),
        (learning_rate({"name": "Cosine"}), ["learning_rate.name is 'Cosine'", "CosineDecay"]),
        (learning_rate({**COSINE, "steps": 3}), ["learning_rate.steps is not an argument of CosineDecay"]),
        (
            learning_rate({"name": "CosineDecay", "decay_steps": 3}),
            ["initial_learning_rate, which is missing"],
        ),
        ({"loss": "mean_absolut_error"}, ["training.loss is 'mean_absolut_error'", "MeanAbsoluteError"]),
        ({"loss": "mae"}, ["training.loss is mae", "does not fit", "CategoricalCrossentropy"]),
        ({"loss": {"label_smoothing": 0.1}}, ["training.loss.name is ''"]),
        ({"loss": {"name": "CategoricalCrossentropy", "from_logits": True}}, ["from_logits", "model.logits"]),
        ({"metrics": ["R2Score"]}, ["training.metrics.0 is R2Score", "does not fit"]),
        ({"metrics": ["AUC", {"name": "F1", "k": 1}]}, ["training.metrics.1.name is 'F1'", "F1Score"]),
        ({"early_stopping": {"monitor": "val_auc"}}, ["early_stopping.monitor is val_auc", "val_accuracy"]),
        (
            {"callbacks": [{"name": "ReduceLROnPlateau", "monitor": "loss"}]},
            ["0.monitor is loss", "val_loss"],
        ),
        (
            {"callbacks": [{"name": "ReduceLROnPlateau", "mode": "mx"}]},
            ["0.mode is 'mx'", "auto, min or max"],
        ),
        ({"callbacks": ["TerminateOnNaN", "terminate_on_nan"]}, ["training.callbacks", "twice"]),
        ({"callbacks": ["SwapEMAWeights"]}, ["callbacks.0", "use_ema"]),
        (
            {"early_stopping": {}} | optimizer_settings(use_ema=True),
            ["training.early_stopping", "swap_on_epoch: true"],
        ),
        (
            {"callbacks": ["ReduceLROnPlateau"]} | learning_rate(COSINE),
            ["callbacks.0 is ReduceLROnPlateau", "schedule"],
        ),
        *(
            ({"callbacks": [name]}, [f"is {name}", "cannot be used"])
            for name in keras_objects.UNSUPPORTED_CALLBACKS
        ),
    ],
)
def test_invalid_training_settings_are_errors(training, parts) -> None:
    with pytest.raises(ConfigError) as error:
        check_keras_settings(
            Model(), Training.model_validate(training), problems.get_description("classification")
        )
    assert [part for part in parts if part not in str(error.value)] == []


def test_an_invalid_regularizer_or_loss_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"model.kernel_regularizer is 'L3'.*L2"):
        check_keras_settings(
            Model(kernel_regularizer="L3"), Training(), problems.get_description("regression")
        )
    with pytest.raises(ConfigError, match=r"does not fit.*Huber"):
        check_keras_settings(
            Model(), Training(loss="CategoricalCrossentropy"), problems.get_description("regression")
        )


@pytest.mark.parametrize(
    ("kind", "name", "arguments", "message"),
    [
        ("optimizers", "sgd", {"momentum": 2}, r"sgd rejects key \(momentum: 2\): ValueError: .*momentum"),
        ("callbacks", "ReduceLROnPlateau", {"factor": 2}, r"rejects key .*factor >= 1.0"),
        ("metrics", "AUC", {"curve": "XY"}, r"AUC rejects key .*curve"),
        (
            "optimizers.schedules",
            "PiecewiseConstantDecay",
            {"boundaries": [1], "values": [1]},
            r"rejects key",
        ),
        ("regularizers", "L2", {"l2": "x"}, r"L2 rejects key"),
    ],
)
def test_errors_of_keras_are_reported(kind, name, arguments, message) -> None:
    with pytest.raises(TrainError, match=message):
        keras_object(kind, name, **arguments).build()


@pytest.mark.parametrize("logits", [False, True])
def test_classification_losses_and_metrics_accept_labels(logits: bool) -> None:
    """The values equal those of Keras for probabilities and one-hot targets, or labels."""
    problem, description = problems.get_problem("classification"), problems.get_description("classification")
    probabilities, one_hot = keras.ops.softmax(LOGITS), keras.ops.one_hot(LABELS, 3)
    predictions = LOGITS if logits else probabilities
    for kind, names in (("losses", description.losses), ("metrics", description.training_metrics)):
        for name in names:
            function = keras_object(kind, name, **required_arguments(kind, name))
            labels = name.startswith(("Sparse", "CategoricalGeneralized"))
            expected = function.build()(LABELS if labels else one_hot, probabilities)
            if kind == "losses":
                actual = problem.adapt_loss(function.build(from_logits=logits), logits, Normalization())(
                    LABELS, predictions
                )
            else:
                actual = problem.adapt_metric(function.build(), logits)(LABELS, predictions)
            assert float(actual) == pytest.approx(float(expected), rel=1e-3, abs=1e-5), name


def test_regression_losses_and_metrics_accept_targets() -> None:
    problem, description = problems.get_problem("regression"), problems.get_description("regression")
    scaling = Normalization(target_mean=(5.0,), target_scale=(2.0,))
    targets, predictions = np.float32([4, 6, 9]), np.float32([[5], [7], [3]])
    for name in description.losses:
        divisor = 1 if "Percentage" in name or "Logarithmic" in name else 2
        expected = keras_object("losses", name).build()(targets / divisor, predictions / divisor)
        actual = problem.adapt_loss(keras_object("losses", name).build(), False, scaling)(
            targets, predictions
        )
        assert float(actual) == pytest.approx(float(expected)), name
    for name in description.training_metrics:
        expected = keras_object("metrics", name).build()(targets[:, None], predictions)
        actual = problem.adapt_metric(keras_object("metrics", name).build(), False)(targets, predictions)
        assert float(actual) == pytest.approx(float(expected)), name


def test_metrics_have_the_names_that_keras_logs() -> None:
    metrics = [keras_object("metrics", name) for name in ("FBetaScore", "Recall", "AUC", "recall")]
    assert metric_names(metrics) == ["fbeta_score", "recall", "auc", "recall_2"]
