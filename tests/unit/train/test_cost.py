"""The cost of a training step, compared with manual calculations."""

import resource
from typing import Any

import pytest

from modelyard.components import artifacts
from modelyard.components.artifacts import Normalization, Schema
from modelyard.components.errors import TrainError
from modelyard.components.train.cost import compute_cost
from modelyard.components.train.measurement import TrainingWorkload
from modelyard.components.train.settings import CodeLocation, Model, Training

DENSE: dict[str, Any] = {"filters": [], "dense": [8]}
PARAMETERS = (64 * 8 + 8) + (8 * 3 + 3)


def workload(model: dict[str, Any], training_examples: int = 60, **training: Any) -> TrainingWorkload:
    return TrainingWorkload(
        example_schema=Schema(
            shape=(8, 8, 1), dtype="uint8", problem="classification", names=("cat", "dog", "emu"), splits={}
        ),
        normalization=Normalization(scale=(255.0,)),
        model=Model.model_validate(model),
        training=Training(**training),
        training_examples=training_examples,
    )


def user_code_workload(train_env: Any, code: str, **training: Any) -> TrainingWorkload:
    """Return a workload with the model of user code."""
    folder = train_env.code(net=code)
    return workload({"build": "net:build", "code": str(folder)}, **training).model_copy(
        update={"code": CodeLocation(url=str(folder)).to_json(), "code_sha256": artifacts.tree_sha256(folder)}
    )


def test_the_cost_of_a_dense_network_matches_a_manual_calculation() -> None:
    cost = compute_cost(workload(DENSE, batch_size=16))
    assert cost.parameters == PARAMETERS
    assert cost.weights == cost.gradients == 4 * PARAMETERS
    assert 8 * PARAMETERS <= cost.optimizer <= 8 * PARAMETERS + 64  # two moments, a step and a learning rate
    assert cost.batch_size == 16
    products = 2 * (64 * 8 + 8 * 3)
    assert (
        2 * 16 * products <= cost.flops <= 4 * 16 * products
    )  # forward pass, gradients of weights and inputs
    assert cost.uncounted == ()
    # per example: 64 pixels and 8 values after relu as float32, and the probabilities or logits
    assert 16 * 4 * (64 + 8) <= cost.activations <= 16 * 4 * (64 + 8 + 4 * 3) + 64
    assert 16 * 4 * 64 <= cost.largest_operation <= 4 * 16 * 4 * 64


def test_activations_and_flops_grow_with_the_batch() -> None:
    small, large = (compute_cost(workload({"filters": [4]}, batch_size=size)) for size in (6, 48))
    assert large.activations == pytest.approx(8 * small.activations, rel=0.01)
    assert large.flops > 6 * small.flops
    assert large.weights == small.weights


def test_the_batch_is_at_most_the_training_examples() -> None:
    assert compute_cost(workload(DENSE, training_examples=7)).batch_size == 7


def test_plain_sgd_has_no_optimizer_state() -> None:
    assert compute_cost(workload(DENSE, optimizer="sgd")).optimizer < 64


def test_computing_the_cost_of_a_huge_model_allocates_no_variables() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cost = compute_cost(workload({"filters": [], "dense": [65536, 65536, 65536]}))
    assert cost.weights + cost.optimizer > 10**11
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 10**9


def test_uncounted_operations_are_listed(train_env: Any) -> None:
    code = """
    def build(input_shape, classes):
        examples = keras.Input(input_shape)
        sequence = layers.Reshape(input_shape[:2])(examples)
        sequence = layers.MultiHeadAttention(1, 2)(sequence, sequence)
        sequence = layers.LSTM(3, use_cudnn=False)(sequence)
        return keras.Model(examples, layers.Dense(classes, activation="softmax")(sequence))
    """
    cost = compute_cost(user_code_workload(train_env, code))
    assert "Einsum" in cost.uncounted
    assert any("While" in layer for layer in cost.uncounted)
    assert "MatMul" not in cost.uncounted


def test_user_code_may_compute_eagerly(train_env: Any) -> None:
    code = """
    import numpy as np

    def build(input_shape, classes):
        scale = layers.Normalization()
        scale.adapt(np.arange(12.0).reshape(3, 4))
        return keras.Sequential([
            keras.Input(input_shape), layers.Flatten(), layers.Dense(4), scale,
            layers.Dense(classes, activation="softmax"),
        ])
    """
    assert compute_cost(user_code_workload(train_env, code)).gradients == 4 * (65 * 4 + 5 * 3)


def test_errors_of_user_code_name_file_and_line(train_env: Any) -> None:
    code = """
    @keras.saving.register_keras_serializable("cost")
    class Failing(layers.Layer):
        def call(self, x, training=False):
            assert not training
            return x

    def build(input_shape, classes):
        x = keras.Input(input_shape)
        return keras.Model(x, layers.Dense(classes, activation="softmax")(layers.Flatten()(Failing()(x))))
    """
    with pytest.raises(TrainError, match=r"net\.py:\d+: AssertionError"):
        compute_cost(user_code_workload(train_env, code))


def test_images_too_small_for_the_network_are_an_error() -> None:
    with pytest.raises(TrainError, match="is too small"):
        compute_cost(workload({"filters": [4, 4, 4, 4]}))


def test_a_model_whose_output_train_refuses_has_no_cost(train_env: Any) -> None:
    code = """
    def build(input_shape, classes):
        return keras.Sequential([keras.Input(input_shape), layers.Flatten(), layers.Dense(classes)])
    """
    with pytest.raises(TrainError, match=r"model\.logits"):
        compute_cost(user_code_workload(train_env, code))


def test_a_metric_with_several_values_has_no_cost() -> None:
    with pytest.raises(TrainError, match="average"):
        compute_cost(workload(DENSE, metrics=["F1Score"]))
