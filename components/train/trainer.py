"""The step `train`: fits the model and exports it.

    train("features", TrainSpec(), "gs://…/features", "model", "history")

Raw examples are read from memory-mapped shards (data.py) and normalized by the network (model.py). The output
is written only if the exported files predict the same as the trained model (export.py).
"""

import math
import platform
import tempfile
import time
from collections.abc import Mapping
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.components import artifacts, problems
from modelyard.components.artifacts import History, Normalization, Schema
from modelyard.components.errors import TrainError, describe
from modelyard.components.events import Resumed, emit
from modelyard.components.step import log
from modelyard.components.store.storage import open_objects
from modelyard.components.train import checkpoint, code_archive, data, user_code
from modelyard.components.train import model as networks
from modelyard.components.train.backend import BACKEND, keras, list_devices, tf, translate_out_of_memory
from modelyard.components.train.callbacks import FailOnNonFinite, ProgressLogger, TrainingState
from modelyard.components.train.checkpoint import CheckpointCallback, CheckpointStore
from modelyard.components.train.data import Features
from modelyard.components.train.export import export
from modelyard.components.train.keras_objects import metric_names
from modelyard.components.train.settings import REGULARIZERS, Model, Training, check_keras_settings
from modelyard.components.train.spec import TrainSpec

CHECKED_EXAMPLES = 32
PACKAGES = ("keras", "numpy", "onnx", "onnxruntime", "tf2onnx")


def train(features_path: str, spec: TrainSpec, features_url: str, model_path: str, history_path: str) -> None:
    """Fit the model and write it with its history; if an error occurs, neither is written.

    Interrupted training resumes from its checkpoint.

    Args:
        features_path: output folder of preprocess.
        spec: the model, the training settings and the checkpoint store.
        features_url: URL of the features; equal URLs mean equal features.
        model_path: folder to write: model.keras, model.onnx, saved_model/ and signature.json.
        history_path: folder to write: history.json.

    Raises:
        ConfigError: a Keras object in the settings does not exist or does not fit.
        DataError: the features are malformed.
        TrainError: the required accelerator is missing, or the model cannot be built, trained or exported.
        StoreError: the user's code or the checkpoint cannot be downloaded.
    """
    settings, training = spec.model, spec.training
    log(f"training on {', '.join(list_devices())} with {BACKEND}")
    features = Features.read(Path(features_path))
    schema, normalization = features.schema, features.normalization
    check_keras_settings(settings, training, problems.get_description(schema.problem))
    keras.utils.set_random_seed(training.seed)
    code = code_archive.fetch_code(spec.code) if spec.code else Path()
    network = networks.build_network(
        settings, schema, normalization, code, spec.code_sha256, training.precision
    )
    compile_model(network, settings, training, schema, normalization, len(features.train))
    inference_model = networks.add_export_layer(network, settings, schema)
    examples = features.train.gather(np.arange(min(CHECKED_EXAMPLES, len(features.train))))
    targets = features.train.targets[: len(examples)]
    with user_code.translate_errors(code, "Training") if settings.build else nullcontext():
        check_untrained_network(network, settings, training, schema, examples, targets)
        if settings.build:
            # Export the untrained model, so that an export that fails is an error before training.
            with tempfile.TemporaryDirectory() as scratch:
                export(inference_model, schema, normalization, examples, Path(scratch))
        checkpoint_store = None
        if spec.store and training.checkpoint_every:
            inputs = schema.model_dump_json(), settings.to_json(), training.recipe(), spec.code_sha256
            key = checkpoint.fingerprint_training(features_url, *inputs)
            checkpoint_store = CheckpointStore(open_objects(spec.store), key)
        history = fit(network, features, training, checkpoint_store)
    history = history.model_copy(update={"settings": _describe_settings(settings, training, schema)})
    with (
        artifacts.replace_folder(Path(history_path)) as history_folder,
        artifacts.replace_folder(Path(model_path)) as folder,
    ):
        export(inference_model, schema, normalization, examples, folder)
        artifacts.write(history_folder / "history.json", history)
    if checkpoint_store:
        checkpoint_store.clear()


def compile_model(
    network: Any,
    settings: Model,
    training: Training,
    schema: Schema,
    normalization: Normalization,
    training_examples: int,
) -> None:
    """Compile a network from `build_network` with its optimizer, loss and metrics.

    Raises:
        TrainError: Keras rejects an argument of the optimizer, the loss or a metric.
    """
    problem, metrics = problems.get_problem(schema.problem), training.metric_objects()
    loss = training.loss_object(problems.get_description(schema.problem)).build(from_logits=settings.logits)
    objects = (metric.build(name=name) for metric, name in zip(metrics, metric_names(metrics), strict=True))
    network.compile(
        training.optimizer_object().build(),
        problem.adapt_loss(loss, settings.logits, normalization),
        metrics=[
            *problem.build_default_metrics(),
            *(problem.adapt_metric(metric, settings.logits) for metric in objects),
        ],
        steps_per_execution=min(
            training.steps_per_execution, math.ceil(training_examples / training.batch_size)
        ),
    )


def check_untrained_network(
    network: Any, settings: Model, training: Training, schema: Schema, examples: Any, targets: Any
) -> None:
    """Check the predictions, the loss and the metrics of a compiled network before training.

    `examples` (n, *shape) and `targets` (n,) are a few examples.

    Raises:
        TrainError: the output does not fit the problem, or Keras cannot compute the loss or a metric.
    """
    if settings.build:
        problems.get_problem(schema.problem).check_untrained_predictions(
            np.asarray(network(examples, training=False)), settings.logits
        )
    if training.loss or training.metrics or settings.regularizers():
        _check_loss_and_metrics(network, examples, targets)


def _check_loss_and_metrics(network: Any, examples: Any, targets: Any) -> None:
    """Compute loss and metrics once; raise TrainError if Keras cannot, or if one has more than one value."""
    predictions = network(examples, training=False)
    try:
        loss = network.compute_loss(examples, targets, predictions, training=False)
        values = {"loss": loss} | network.compute_metrics(examples, targets, predictions)
    except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
        raise TrainError(
            f"Keras cannot compute the loss and the metrics: {describe(error)} Change training.loss, "
            "training.metrics or the regularizers of the model."
        ) from error
    network.reset_metrics()
    for name, value in values.items():
        if np.ndim(value):
            raise TrainError(
                f"{name} has {np.size(value)} values instead of one. Set an argument such as average: macro "
                "in training.metrics, or reduction in training.loss."
            )


def _describe_settings(settings: Model, training: Training, schema: Schema) -> dict[str, Any]:
    """Return the settings for history.json, with the defaults of Keras."""
    plain = {"epochs", "batch_size", "class_weights", "precision", "seed", "steps_per_execution"}
    model = {"build", "arguments"} if settings.build else {"filters", "kernel", "dense", "dropout"}
    stopping, regularizers = training.early_stopping_object(), settings.regularizers()
    filters = {} if settings.build else {"filters": settings.effective_filters(schema.shape)}
    return {
        "model": settings.model_dump(mode="json", include=model) | filters,
        "optimizer": training.optimizer_object().config(),
        "loss": training.loss_object(problems.get_description(schema.problem)).config(),
        "metrics": [metric.config() for metric in training.metric_objects()],
        "callbacks": [callback.config() for callback in training.callback_objects()],
        "early_stopping": stopping.config() if stopping else None,
        **dict.fromkeys(REGULARIZERS),
        **{key: regularizer.config() for key, regularizer in regularizers.items()},
        **training.model_dump(mode="json", include=plain),
    }


def fit(
    network: Any, features: Features, training: Training, checkpoint_store: CheckpointStore | None = None
) -> History:
    """Fit a compiled network, with validation after each epoch, and return its history.

    Each epoch uses each training example once. With early stopping, the network has the weights of the best
    epoch afterwards. Without `checkpoint_store`, there are no checkpoints.

    Raises:
        TooLargeError: the device runs out of memory.
        TrainError: a metric becomes NaN or infinite, or early stopping has no validation examples.
    """
    callbacks = _build_callbacks(training, features)
    state, checkpoints = TrainingState(), list[CheckpointCallback]()
    if checkpoint_store:
        network.optimizer.build(network.trainable_variables)
        checkpoints = [CheckpointCallback(checkpoint_store, training.checkpoint_every, network, callbacks)]
        checkpoints[0].restore()
        if (state := checkpoints[0].state).epochs:
            emit(Resumed(step="train", epoch=state.epochs, epochs=training.epochs))
    progress = ProgressLogger(training.epochs, len(features.train), state)
    validation = (
        data.ordered_batches(features.validation, training.batch_size) if len(features.validation) else None
    )
    start = time.perf_counter() - sum(state.seconds)
    with translate_out_of_memory(training.batch_size):
        network.fit(
            data.shuffled_batches(features.train, training.batch_size, training.seed, state.epochs),
            epochs=training.epochs,
            initial_epoch=state.epochs,
            validation_data=validation,
            callbacks=[FailOnNonFinite(), *callbacks, progress, *checkpoints],
            class_weight=_compute_class_weights(training.class_weights, features),
            shuffle=False,  # the dataset shuffles itself
            verbose=0,
        )
    return History(
        metrics=state.metrics,
        epochs=len(state.seconds),
        stopped_early=len(state.seconds) < training.epochs,
        resumed_after=state.epochs,
        seconds=time.perf_counter() - start,
        examples_per_second=progress.examples_per_second,
        parameters=network.count_params(),
        packages=_read_package_versions(),
    )


def _read_package_versions() -> dict[str, str]:
    names = (*PACKAGES, "jax") if BACKEND == "jax" else PACKAGES
    # The package of TensorFlow is tensorflow or tensorflow-cpu.
    versions = {"python": platform.python_version(), "tensorflow": tf.__version__}
    return versions | {name: version(name) for name in names}


def _compute_class_weights(
    weights: Mapping[str, float] | str | None, features: Features
) -> dict[int, float] | None:
    names, examples = features.schema.names, features.train
    if weights is None:
        return None
    if isinstance(weights, str):  # balanced
        counts = np.bincount(examples.targets, minlength=len(names)).tolist()
        return {label: len(examples) / (len(names) * max(1, count)) for label, count in enumerate(counts)}
    if unknown := weights.keys() - set(names):
        raise TrainError(
            f"training.class_weights has {min(unknown)!r}, which is not a class of the data. The classes are "
            f"{', '.join(names)}."
        )
    return {label: weights.get(name, 1.0) for label, name in enumerate(names)}


def _build_callbacks(training: Training, features: Features) -> list[Any]:
    """Return the callbacks of the settings, early stopping last: it uses the weights that others set."""
    objects = [*training.callback_objects(), *filter(None, [training.early_stopping_object()])]
    monitors = [callback for callback in objects if "monitor" in callback.signature]
    if monitors and not len(features.validation):
        key = monitors[0].key
        raise TrainError(
            f"{key} monitors validation, but there are no validation examples. Raise data.validation, or "
            f"remove {key}."
        )
    callbacks = [callback.build() for callback in objects]
    directions = training.monitors(problems.get_description(features.schema.problem))
    for callback in callbacks:
        if getattr(callback, "mode", "") == "auto":
            higher = directions[callback.monitor.removeprefix("val_")] == "higher"
            callback.mode = "max" if higher else "min"
    return callbacks
