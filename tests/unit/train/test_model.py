"""The built-in CNN and the normalization."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.components.artifacts import Normalization, Schema
from modelyard.components.errors import TrainError
from modelyard.components.train import data, trainer
from modelyard.components.train import model as networks
from modelyard.components.train.backend import keras
from modelyard.components.train.data import Features
from modelyard.components.train.settings import Model, Training

CLASSES = tuple("0123456789")


def build(shape: tuple[int, ...], dtype: str = "uint8", scale: float = 255.0, **settings: Any) -> Any:
    schema = Schema.model_validate(
        {"shape": shape, "dtype": dtype, "problem": "classification", "names": CLASSES, "splits": {}}
    )
    model = Model.model_validate(settings)
    return networks.build_network(model, schema, Normalization(scale=(scale,)), Path(), "")


def tutorial_network() -> Any:
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(64, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


def layer_shapes(model: Any) -> list[tuple[str, tuple[int, ...]]]:
    names = ("Conv2D", "MaxPooling2D", "Flatten", "Dense")
    return [
        (type(layer).__name__, layer.output.shape) for layer in model.layers if type(layer).__name__ in names
    ]


def test_default_network_is_that_of_the_tutorial() -> None:
    keras.utils.set_random_seed(3)
    network = build((32, 32, 3))
    keras.utils.set_random_seed(3)
    reference = tutorial_network()
    assert layer_shapes(network) == layer_shapes(reference)
    assert network.count_params() == reference.count_params() == 167_562
    for weight, expected in zip(network.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_training_computes_the_weights_of_the_tutorial(train_env) -> None:
    images, labels = train_env.images(100, (32, 32, 3))
    # a division by 256 is exact in floating point
    features = Features.read(train_env.features(images, labels, scale=(256.0,)))
    schema = features.schema.model_copy(update={"names": CLASSES})
    keras.utils.set_random_seed(3)
    network = networks.build_network(Model(), schema, features.normalization, Path(), "")
    network.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", steps_per_execution=4)
    trainer.fit(network, features, Training(epochs=2, seed=5))

    keras.utils.set_random_seed(3)
    reference = tutorial_network()
    reference.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    same_order = data.shuffled_batches(features.train, 32, 5)
    for _ in range(2):
        for examples, classes in same_order:
            reference.train_on_batch(examples.numpy() / 256.0, classes)

    for weight, expected in zip(network.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_allclose(weight, expected, atol=1e-6)


def test_pixels_are_divided_by_255() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    raw = keras.Input((16, 16, 1), dtype="uint8")
    scale = keras.Model(raw, networks._normalize(raw, Normalization(scale=(255.0,))))
    expected = (values / 255.0).astype(np.float32)
    np.testing.assert_array_max_ulp(scale.predict(values, verbose=0), expected, maxulp=1)


def test_standardization_is_per_channel() -> None:
    values = np.random.default_rng(0).integers(0, 256, (4, 2, 2, 3)).astype(np.uint8)
    mean, scale = (1.0, 50.0, 128.0), (2.0, 30.0, 1.0)
    raw = keras.Input((2, 2, 3), dtype="uint8")
    model = keras.Model(raw, networks._normalize(raw, Normalization(mean=mean, scale=scale)))
    np.testing.assert_allclose(np.asarray(model(values)), (values - mean) / scale, rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ((8, 8), {"filters": [4]}),
        ((8, 8, 1), {"filters": [4], "dense": [], "dropout": 0.5}),
        ((6,), {}),
        ((8, 8), {}),
        ((2, 3, 4, 5), {"filters": [], "dense": []}),
    ],
)
def test_networks_of_any_size_accept_examples_of_any_rank(shape, settings) -> None:
    model = build(shape, **settings)
    outputs = np.asarray(model(np.ones((5, *shape), np.uint8)))
    assert outputs.shape == (5, 10)
    np.testing.assert_allclose(outputs.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        ((6, 9, 3), {"kernel": 7}, r"convolution_1 \(7x7\) is too small: 6x9 pixels .* smaller model.kernel"),
        ((5, 5), {"filters": [4, 4]}, r"convolution_2 \(3x3\) is too small: 1x1 .* \(now \[4, 4\]\)"),
        ((3, 3), {"filters": [4]}, r"pooling_1 \(2x2\) is too small: 1x1"),
        ((40,), {"filters": [4]}, r"an example has shape \(40,\). Set model.filters to \[\]"),
    ],
)
def test_images_too_small_for_the_network_are_an_error(shape, settings, message) -> None:
    with pytest.raises(TrainError, match=message):
        build(shape, **settings)
