"""The script of the Keras tutorial, the baseline of benchmarks/training.py.

Prints the training examples per second after the first epoch, and the validation accuracy of the last epoch.
"""

import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

path, epochs = sys.argv[1], int(sys.argv[2])
with np.load(path) as arrays:
    x_train, y_train = arrays["x_train"] / 255.0, arrays["y_train"]
    x_valid, y_valid = arrays["x_valid"] / 255.0, arrays["y_valid"]

keras.utils.set_random_seed(0)
model = keras.Sequential(
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
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
ends: list[float] = []
clock = keras.callbacks.LambdaCallback(on_epoch_end=lambda _epoch, _logs: ends.append(time.perf_counter()))
history = model.fit(
    x_train,
    y_train,
    batch_size=32,
    epochs=epochs,
    validation_data=(x_valid, y_valid),
    callbacks=[clock],
    verbose=0,
)
print(len(x_train) * (epochs - 1) / (ends[-1] - ends[0]), history.history["val_accuracy"][-1])
