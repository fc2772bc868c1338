"""What tracing counts, beside sums done by hand: multiplications and additions, two each."""

import resource
from typing import Any

import numpy as np
import pytest

from components import artifacts
from components.artifacts import Normalization, Schema
from components.train import graph, trace
from components.train.backend import keras, tf
from components.train.measured import Question
from components.train.settings import Code

LAYERS = keras.layers
BATCH, CLASSES = 4, 3


def step(shape: tuple[int, ...], *layers: Any) -> Any:
    """Return the graph of a training step of a Sequential model with a Dense of three classes at its end."""
    network = keras.Sequential([keras.Input(shape), *layers, LAYERS.Dense(CLASSES, activation="softmax")])
    return graph_of(network, shape)


def graph_of(network: Any, shape: tuple[int, ...]) -> Any:
    network.compile("adam", keras.losses.SparseCategoricalCrossentropy(), metrics=["accuracy"])
    network.optimizer.build(network.trainable_variables)
    return trace.traced_step(network, shape, BATCH)


def attention() -> Any:
    examples = keras.Input((8, 6))
    found = LAYERS.MultiHeadAttention(2, 5)(examples, examples)
    found = LAYERS.GlobalAveragePooling1D()(found)
    return keras.Model(examples, LAYERS.Dense(CLASSES, activation="softmax")(found))


def classes(inputs: int) -> int:
    return 2 * inputs * CLASSES


# Each: the shape of an example, the layers, and the forward pass of one example.
BY_HAND = {
    "dense": ((10,), lambda: [LAYERS.Dense(7)], 2 * 10 * 7 + classes(7)),
    "convolution": (
        (9, 8, 2),
        lambda: [LAYERS.Conv2D(5, 3), LAYERS.GlobalAveragePooling2D()],
        2 * (7 * 6 * 5) * (3 * 3 * 2) + classes(5),
    ),
    "strided and padded": (
        (8, 8, 3),
        lambda: [LAYERS.Conv2D(4, 3, strides=2, padding="same"), LAYERS.GlobalAveragePooling2D()],
        2 * (4 * 4 * 4) * (3 * 3 * 3) + classes(4),
    ),
    "depthwise": (
        (8, 8, 3),
        lambda: [LAYERS.DepthwiseConv2D(3, depth_multiplier=2), LAYERS.GlobalAveragePooling2D()],
        2 * (6 * 6 * 6) * (3 * 3) + classes(6),
    ),
    "grouped": (
        (6, 6, 4),
        lambda: [LAYERS.Conv2D(8, 3, groups=2), LAYERS.GlobalAveragePooling2D()],
        2 * (4 * 4 * 8) * (3 * 3 * 2) + classes(8),
    ),
    "transposed": (
        (4, 4, 3),
        lambda: [LAYERS.Conv2DTranspose(5, 3), LAYERS.GlobalAveragePooling2D()],
        2 * (4 * 4 * 3) * (3 * 3 * 5) + classes(5),
    ),
    "volume": (
        (5, 5, 5, 2),
        lambda: [LAYERS.Conv3D(4, 3), LAYERS.GlobalAveragePooling3D()],
        2 * (3 * 3 * 3 * 4) * (3 * 3 * 3 * 2) + classes(4),
    ),
    "lstm": ((12, 5), lambda: [LAYERS.LSTM(7)], 12 * 2 * (5 + 7) * 4 * 7 + classes(7)),
    "gru, both ways": (
        (12, 5),
        lambda: [LAYERS.Bidirectional(LAYERS.GRU(7))],
        2 * 12 * 2 * (5 + 7) * 3 * 7 + classes(14),
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_the_forward_pass_is_what_a_hand_counts(name: str) -> None:
    shape, layers, expected = BY_HAND[name]
    work = graph.walk(step(shape, *layers()))
    assert work.flops - work.backward == BATCH * expected
    assert work.unknown == []
    assert work.backward >= BATCH * expected  # the gradients of the weights alone are as much again


def test_attention_counts_its_einsums() -> None:
    work = graph.walk(graph_of(attention(), (8, 6)))
    projections = 3 * 2 * 8 * 6 * (2 * 5) + 2 * 8 * (2 * 5) * 6
    scores = 2 * (2 * 8 * 8 * 5) * 2  # query by key, and weights by value, of two heads
    assert work.flops - work.backward == BATCH * (projections + scores + classes(6))
    assert work.unknown == []


def test_a_dense_layer_is_trained_for_its_weights_and_its_input() -> None:
    work = graph.walk(step((10,), LAYERS.Dense(7)))
    weights = 2 * 10 * 7 + classes(7)
    assert work.backward == BATCH * (weights + classes(7))  # nobody needs the gradient of the examples


def test_a_loop_of_unknown_length_is_a_lower_bound() -> None:
    @keras.saving.register_keras_serializable("tests")
    class Until(LAYERS.Layer):  # type: ignore[misc]
        def call(self, examples: Any) -> Any:
            return tf.while_loop(
                lambda found: tf.reduce_sum(found) < 100.0,
                lambda found: (found + tf.matmul(found, tf.ones((10, 10))),),
                (examples,),
            )[0]

    work = graph.walk(step((10,), Until()))
    assert [reason for reason in work.unknown if reason.startswith("a loop of unknown length")]
    assert work.flops - work.backward >= BATCH * (2 * 10 * 10 + classes(10))  # once at least


def test_python_in_the_graph_is_a_lower_bound() -> None:
    class Hidden(LAYERS.Layer):  # type: ignore[misc]
        def call(self, examples: Any) -> Any:
            found = tf.numpy_function(np.cumsum, [examples], tf.float32)
            return tf.ensure_shape(tf.reshape(found, tf.shape(examples)), examples.shape)

    work = graph.walk(step((10,), Hidden()))
    assert [reason for reason in work.unknown if reason.startswith("PyFunc")]


def test_what_nothing_depends_on_does_not_run() -> None:
    @tf.function
    def wasteful(values: Any) -> Any:
        tf.matmul(values, values)
        return values + 1.0

    concrete = wasteful.get_concrete_function(tf.TensorSpec((8, 8), tf.float32))
    assert [one.type for one in concrete.graph.get_operations()].count("MatMul") == 1
    assert graph.walk(concrete.graph).flops == 0


def test_an_einsum_of_broadcast_axes() -> None:
    @tf.function
    def product(one: Any, other: Any) -> Any:
        return tf.einsum("...ij,...jk->...ik", one, other)

    sizes = tf.TensorSpec((2, 5, 3, 4), tf.float32), tf.TensorSpec((5, 4, 6), tf.float32)
    assert graph.walk(product.get_concrete_function(*sizes).graph).flops == 2 * 2 * 5 * 3 * 4 * 6


def question(model: dict[str, Any], **training: Any) -> Question:
    return Question(
        examples=Schema(shape=(8, 8, 1), dtype="uint8", classes=("cat", "dog", "emu"), splits={}),
        normalization=Normalization(deviation=(255.0,)),
        architecture=model,
        training=training,
        rows=60,
    )


def test_sizes_of_the_built_in_network() -> None:
    found = trace.trace(question({"filters": [], "dense": [8]}, batch_size=16))
    parameters = (64 * 8 + 8) + (8 * 3 + 3)
    assert found.parameters == found.trainable == parameters
    assert found.weights == found.gradients == 4 * parameters
    assert 8 * parameters <= found.optimizer <= 8 * parameters + 64  # two moments, a step and a learning rate
    assert found.flops - found.backward == 16 * 2 * (64 * 8 + 8 * 3)
    assert found.lower_bound == ()
    assert found.batch == 16 * (64 + 8)
    # of every example: 64 pixels and 8 values after relu as float32, and the probabilities or logits
    assert 16 * 4 * (64 + 8) <= found.activations <= 16 * 4 * (64 + 8 + 4 * 3) + 64


def test_plain_sgd_keeps_no_moments() -> None:
    found = trace.trace(question({"filters": [], "dense": [8]}, optimizer="sgd"))
    assert found.optimizer < 64


def test_a_recurrent_layer_keeps_every_step() -> None:
    work = graph.walk(step((12, 5), LAYERS.LSTM(7)))
    assert work.pushed >= 12 * BATCH * 7 * 4 * 4  # four gates of float32 a step


def test_activations_grow_with_the_batch() -> None:
    small, large = (trace.trace(question({"filters": [4]}, batch_size=size)) for size in (8, 64))
    assert large.activations == pytest.approx(8 * small.activations, rel=0.01)
    assert large.flops == 8 * small.flops


def test_a_model_that_is_larger_than_any_memory_is_traced_without_any() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = trace.trace(question({"filters": [], "dense": [65536, 65536, 65536]}))
    assert found.parameters == 65 * 65536 + 2 * 65537 * 65536 + 65537 * 3
    assert found.weights + found.optimizer > 10**11
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 10**9


def test_code_that_computes_with_values_is_traced_all_the_same(desk: Any) -> None:
    code = desk.code(
        adapting="""
        import numpy as np

        def build(input_shape, classes):
            scale = layers.Normalization()
            scale.adapt(np.arange(12.0).reshape(3, 4))
            return keras.Sequential([
                keras.Input(input_shape), layers.Flatten(), layers.Dense(4), scale,
                layers.Dense(classes, activation="softmax"),
            ])
        """
    )
    asked = question({"build": "adapting:build", "code": str(code)}).model_copy(
        update={"code": Code(place=str(code)).text(), "code_sha256": artifacts.tree_sha256(code)}
    )
    found = trace.trace(asked)
    assert found.trainable == 65 * 4 + 5 * 3


def test_what_another_backend_trains_is_traced_on_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = question({"filters": [4]})
    here = trace.trace(asked)
    monkeypatch.setattr(trace, "BACKEND", "jax")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    there = trace.trace(asked)
    assert there == here.model_copy(update={"seconds": there.seconds})
