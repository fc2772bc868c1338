"""What tracing counts, beside sums done by hand: multiplications and additions, two each."""

import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.components import artifacts
from modelyard.components.artifacts import Normalization, Schema
from modelyard.components.train import graph, trace
from modelyard.components.train.backend import keras, tf
from modelyard.components.train.measured import Question
from modelyard.components.train.settings import Code

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
    assert found.dtype == "float32"
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
    small, large = (trace.trace(question({"filters": [4]}, batch_size=size)) for size in (6, 48))
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
    found = trace.trace(own(code, "adapting:build"))
    assert found.trainable == 65 * 4 + 5 * 3


def test_what_another_backend_trains_is_traced_on_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = question({"filters": [4]})
    here = trace.trace(asked)
    monkeypatch.setattr(trace, "BACKEND", "jax")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    there = trace.trace(asked)
    assert there == here.model_copy(update={"seconds": there.seconds})


class Wide(LAYERS.Layer):  # type: ignore[misc]
    """Two layers with much between them, which is computed again for the gradients if so wanted."""

    def __init__(self, again: bool) -> None:
        super().__init__()
        self._again = again
        self._layers_of = [LAYERS.Dense(70, activation="tanh"), LAYERS.Dense(7, activation="tanh")]

    def build(self, shape: Any) -> None:
        self._layers_of[0].build(shape)
        self._layers_of[1].build((*shape[:-1], 70))

    def call(self, examples: Any) -> Any:
        def both(given: Any) -> Any:
            return self._layers_of[1](self._layers_of[0](given))

        return (keras.remat(both) if self._again else both)(examples)


def test_what_is_computed_again_belongs_to_the_gradients() -> None:
    layers = 2 * 10 * 70 + 2 * 70 * 7
    steps = [step((10,), LAYERS.Dense(10), Wide(again)) for again in (False, True)]
    once, again = map(graph.walk, steps)
    for work in (once, again):
        assert work.flops - work.backward == BATCH * (2 * 10 * 10 + layers + classes(7))
    assert again.backward - once.backward == BATCH * layers
    keeps, forgets = (trace.kept(one)[0] for one in steps)
    assert keeps - forgets >= BATCH * 70 * 4


def test_a_custom_gradient_keeps_what_it_needs_for_itself() -> None:
    kept, unknown = trace.kept(step((10,), LAYERS.Dense(7), LAYERS.Activation("silu")))
    # the examples, before silu, after silu, and the probabilities or logits
    assert BATCH * 4 * (10 + 7 + 7) <= kept <= BATCH * 4 * (10 + 7 + 7 + 4 * CLASSES) + 64
    assert unknown == []


def test_what_a_branch_keeps_for_its_gradient_is_counted() -> None:
    class Either(LAYERS.Layer):  # type: ignore[misc]
        def call(self, examples: Any) -> Any:
            return keras.ops.cond(
                keras.ops.sum(examples) > 0, lambda: tf.tanh(tf.exp(examples)), lambda: examples
            )

    work = graph.walk(step((10,), LAYERS.Dense(50), Either()))
    assert work.pushed >= BATCH * 50 * 4


def test_a_layer_of_its_own_precision_is_told(desk: Any) -> None:
    code = desk.code(
        halves="""
        def build(input_shape, classes):
            return keras.Sequential([
                keras.Input(input_shape), layers.Flatten(), layers.Dense(50, dtype="mixed_bfloat16"),
                layers.Dense(classes, activation="softmax", dtype="float32"),
            ])
        """
    )
    assert trace.trace(own(code, "halves:build")).dtype == "mixed_bfloat16"


def test_a_recurrent_layer_for_cudnn_is_counted_without_it(desk: Any) -> None:
    code = desk.code(
        fast="""
        def build(input_shape, classes):
            return keras.Sequential([
                keras.Input(input_shape), layers.Reshape(input_shape[:2]), layers.LSTM(7, use_cudnn=True),
                layers.Dense(classes, activation="softmax"),
            ])
        """
    )
    found = trace.trace(own(code, "fast:build"))
    assert found.lower_bound == ()
    assert found.flops - found.backward == 32 * (8 * 2 * (8 + 7) * 4 * 7 + classes(7))


def own(code: Path, build: str) -> Question:
    """Return the question about code of the user's own."""
    return question({"build": build, "code": str(code)}).model_copy(
        update={"code": Code(place=str(code)).text(), "code_sha256": artifacts.tree_sha256(code)}
    )
