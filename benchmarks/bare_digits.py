"""A bare training script for the digits: load, train, save .keras.

The baseline of the first run in benchmarks/flow.py: same examples, epochs, batch size and layers as
examples/digits.yaml, without data validation, export, evaluation or serving.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from modelyard.pipelines.config.config import load

config = load(None)
digits = load_digits()
images = digits.images[..., None] / config.data.scale
test, validation = config.data.test, config.data.validation
x, x_test, y, y_test = train_test_split(images, digits.target, test_size=test, random_state=0)
x_train, x_valid, y_train, y_valid = train_test_split(x, y, test_size=validation, random_state=0)

layers = [keras.Input(images.shape[1:])]
for filters in config.model.filters:
    layers += [
        keras.layers.Conv2D(filters, config.model.kernel, activation="relu"),
        keras.layers.MaxPooling2D(),
    ]
layers += [keras.layers.Flatten()]
layers += [keras.layers.Dense(units, activation="relu") for units in config.model.dense]
layers += [keras.layers.Dense(10, activation="softmax")]
model = keras.Sequential(layers)
model.compile(config.training.optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(
    x_train,
    y_train,
    batch_size=config.training.batch_size,
    epochs=config.training.epochs,
    validation_data=(x_valid, y_valid),
    verbose=0,
)
model.save(sys.argv[1])
