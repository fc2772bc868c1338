"""Optimizers by the names and settings of Keras."""

import inspect
import subprocess
import sys

import pytest

from modelyard.components.errors import TrainError
from modelyard.components.train import optimizers
from modelyard.components.train.backend import keras


def test_every_optimizer_of_keras_is_known_by_its_name() -> None:
    found = {kind for kind in vars(keras.optimizers).values() if inspect.isclass(kind)}
    wrappers = {"Optimizer", "LossScaleOptimizer", "MultiOptimizer", "OptimizerMap"}
    assert {type(optimizers.build(name, {})) for name in optimizers.NAMES} == {
        kind for kind in found if kind.__name__ not in wrappers
    }


def test_names_are_known_without_tensorflow() -> None:
    check = (
        "import sys, modelyard.components.train.optimizers; "
        "sys.exit(bool({'keras', 'tensorflow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("sgd", {"learning_rate": 0.5, "momentum": 0.9, "nesterov": True, "clipnorm": 1}),
        ("adam", {"learning_rate": 1, "weight_decay": None, "use_ema": True, "ema_overwrite_frequency": 10}),
        ("muon", {"exclude_layers": ["classes"], "ns_steps": 3}),
    ],
)
def test_settings_reach_the_optimizer(name, settings) -> None:
    config = optimizers.build(name, settings).get_config()
    for key, value in settings.items():
        assert config[key] == pytest.approx(value), key


def test_the_learning_rate_may_be_a_schedule_of_keras() -> None:
    rate = {"name": "ExponentialDecay", "initial_learning_rate": 0.5, "decay_steps": 10, "decay_rate": 0.1}
    optimizer = optimizers.build("adam", {"learning_rate": rate})
    optimizer.iterations.assign(10)
    assert float(optimizer.learning_rate) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("adm", {}, r"training.optimizer is 'adm', .* Did you mean adam"),
        ("zzz", {}, r"training.optimizer is 'zzz', .* Choose one of adadelta, "),
        ("adam", {"lerning_rate": 1}, r"lerning_rate is no setting of adam. Did you mean learning_rate"),
        ("adam", {"momentum": 0.9}, r"optimizer_settings.momentum is no setting of adam"),
        ("adam", {"name": "x"}, r"optimizer_settings.name is no setting"),
        ("adam", {"learning_rate": "fast"}, r"learning_rate is 'fast', .* Give a number above 0"),
        ("adam", {"learning_rate": -1}, r"learning_rate is -1, .* Give a number above 0"),
        ("adam", {"learning_rate": True}, r"learning_rate is True, .* Give a number"),
        ("adam", {"beta_1": None}, r"beta_1 is None, .* Give a finite number"),
        ("adam", {"epsilon": float("nan")}, r"epsilon is nan, .* Give a finite number"),
        ("sgd", {"nesterov": 1}, r"nesterov is 1, .* Give true or false"),
        ("muon", {"ns_steps": 2.5}, r"ns_steps is 2.5, .* Give a whole number"),
        ("muon", {"exclude_layers": "dense"}, r"exclude_layers is 'dense', .* Give a list of names"),
        (
            "sgd",
            {"learning_rate": {"name": "Cosine"}},
            r"learning_rate.name is 'Cosine', .* mean CosineDecay",
        ),
        (
            "sgd",
            {"learning_rate": {"name": "CosineDecay", "steps": 3}},
            r"CosineDecay refuses .*learning_rate: TypeError: .*'steps'",
        ),
        ("sgd", {"momentum": 2}, r"sgd refuses .* \(momentum: 2\): ValueError: .*momentum.* Change that"),
    ],
)
def test_what_an_optimizer_cannot_use_is_named(name, settings, message) -> None:
    with pytest.raises(TrainError, match=message):
        optimizers.build(name, settings)
