"""Fits the model and exports it; what the step `train` calls.

    train("features", TrainSpec(), "gs://…/features", "model", "history")

The rows come through memory maps (data.py), the network takes them raw (model.py), and nothing is left behind
unless the exported files predict what the trained model does (export.py).
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
from modelyard.components.store.settings import Store
from modelyard.components.store.storage import open_objects
from modelyard.components.train import checkpoint, code_archive, data, user_code
from modelyard.components.train import model as networks
from modelyard.components.train.backend import BACKEND, keras, list_devices, tf, translate_out_of_memory
from modelyard.components.train.callbacks import FailOnNonFinite, ProgressLogger
from modelyard.components.train.checkpoint import CheckpointCallback, CheckpointStore, TrainingState
from modelyard.components.train.data import Features
from modelyard.components.train.export import export
from modelyard.components.train.keras_objects import metric_names
from modelyard.components.train.settings import REGULARIZERS, Model, Training, check_keras_settings
from modelyard.components.train.spec import TrainSpec

CHECKED_EXAMPLES = 32
PACKAGES = ("keras", "numpy", "onnx", "onnxruntime", "tf2onnx")


def train(features: str, spec: TrainSpec, origin: str, model: str, history: str) -> None:
    """Fit the model on `features` and write `model` and `history`; a failure writes neither.

    A training that was cut off after a checkpoint goes on from there.

    Args:
        features: directory that preprocess wrote.
        spec: the model, how it is fitted, and where its checkpoints are.
        origin: where the features come from: the same address, the same rows.
        model: directory to write: model.keras, model.onnx, saved_model/ and signature.json.
        history: directory to write: history.json.

    Raises:
        ConfigError: something of Keras that the settings name does not exist or does not fit.
        DataError: the features are malformed.
        TrainError: the accelerator that is asked for is not there, or the model cannot be built, trained or
            exported.
        StoreError: the user's own code cannot be fetched.
    """
    settings, plan = spec.model, spec.training
    log(f"training on {', '.join(list_devices())} with {BACKEND}")
    rows = Features.read(Path(features))
    check_keras_settings(settings, plan, problems.describe(rows.schema.problem))
    keras.utils.set_random_seed(plan.seed)
    folder = code_archive.fetch_code(spec.code) if spec.code else Path()
    network = networks.build_network(
        settings, rows.schema, rows.normalization, folder, spec.code_sha256, plan.precision
    )
    compile_model(network, settings, plan, rows.schema, rows.normalization, len(rows.train))
    exported = networks.add_export_layer(network, settings, rows.schema)
    checked = rows.train.gather(np.arange(min(CHECKED_EXAMPLES, len(rows.train))))
    with user_code.translate_errors(folder, "Training") if settings.build else nullcontext():
        if settings.build:
            problems.of(rows.schema.problem).check_untrained(
                np.asarray(network(checked, training=False)), settings.logits
            )
            # What cannot be exported fails now, and not after hours.
            with tempfile.TemporaryDirectory() as rehearsal:
                export(exported, rows.schema, rows.normalization, checked, Path(rehearsal))
        if plan.loss or plan.metrics or settings.regularizers():
            check_loss_and_metrics(network, checked, rows.train.targets[: len(checked)])
        identity = origin, rows.schema.model_dump_json(), settings.text(), plan.recipe(), spec.code_sha256
        checkpoint_store = _checkpoint_store(spec.store, plan, *identity)
        record = fit(network, rows, plan, checkpoint_store)
    record = record.model_copy(update={"settings": effective_settings(settings, plan, rows.schema)})
    with artifacts.writing(Path(history)) as written, artifacts.writing(Path(model)) as directory:
        export(exported, rows.schema, rows.normalization, checked, directory)
        artifacts.write(written / "history.json", record)
    if checkpoint_store:
        checkpoint_store.clear()


def compile_model(
    network: Any, settings: Model, plan: Training, schema: Schema, normalization: Normalization, rows: int
) -> None:
    """Give a network its optimizer, loss and metrics.

    Args:
        network: what `build` of model.py returned.
        settings: the network's.
        plan: the optimizer, the loss and the sizes.
        schema: what the examples are.
        normalization: with the scale of the targets.
        rows: training rows of an epoch.

    Raises:
        TrainError: Keras refuses an argument of one of them.
    """
    problem, metrics = problems.of(schema.problem), plan.metric_objects()
    loss = plan.loss_object(problems.describe(schema.problem)).build(from_logits=settings.logits)
    named = (one.build(name=name) for one, name in zip(metrics, metric_names(metrics), strict=True))
    network.compile(
        plan.optimizer_object().build(),
        problem.loss_on(loss, settings.logits, normalization),
        metrics=[*problem.own_metrics(), *(problem.metric_on(one, settings.logits) for one in named)],
        steps_per_execution=min(plan.steps_per_execution, math.ceil(rows / plan.batch_size)),
    )


def check_loss_and_metrics(network: Any, examples: Any, targets: Any) -> None:
    """Compute loss and metrics once, so that what Keras refuses then is refused before training.

    Raises:
        TrainError: Keras refuses to compute one, or it is not one number.
    """
    answers = network(examples, training=False)
    try:
        loss = network.compute_loss(examples, targets, answers, training=False)
        values = {"loss": loss} | network.compute_metrics(examples, targets, answers)
    except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
        raise TrainError(
            f"Keras cannot compute the loss and the metrics: {describe(error)} Change training.loss, "
            "training.metrics or the model's regularizers."
        ) from error
    network.reset_metrics()
    for name, value in values.items():
        if np.ndim(value):
            raise TrainError(
                f"{name} has {np.size(value)} values, and one is expected. Set an argument such as "
                "average: macro in training.metrics, or reduction in training.loss."
            )


def effective_settings(settings: Model, plan: Training, schema: Schema) -> dict[str, Any]:
    """Return the settings that are in effect, with Keras' defaults."""
    plain = {"epochs", "batch_size", "class_weights", "precision", "seed", "steps_per_execution"}
    own = {"build", "arguments"} if settings.build else {"filters", "kernel", "dense", "dropout"}
    stopping, regularizers = plan.early_stopping_object(), settings.regularizers()
    return {
        "model": settings.model_dump(mode="json", include=own),
        "optimizer": plan.optimizer_object().config(),
        "loss": plan.loss_object(problems.describe(schema.problem)).config(),
        "metrics": [one.config() for one in plan.metric_objects()],
        "callbacks": [one.config() for one in plan.callback_objects()],
        "early_stopping": stopping and stopping.config(),
        **{key: (one := regularizers.get(key)) and one.config() for key in REGULARIZERS},
        **plan.model_dump(mode="json", include=plain),
    }


def fit(
    network: Any, rows: Features, plan: Training, checkpoint_store: CheckpointStore | None = None
) -> History:
    """Fit a compiled network, with validation after each epoch, and return what happened.

    Every training row is seen exactly once an epoch. With early stopping, the best epoch's weights are
    those that stay.

    Args:
        network: what `compile_model` compiled.
        rows: what it learns.
        plan: how.
        checkpoint_store: where its checkpoint is; None for none.

    Raises:
        TooLargeError: the memory of the device is too small.
        TrainError: a metric became NaN or infinite, or early stopping has no validation rows.
    """
    own = _callbacks(plan, rows)
    state, checkpoints = TrainingState(), None
    if checkpoint_store:
        network.optimizer.build(network.trainable_variables)
        checkpoints = CheckpointCallback(checkpoint_store, plan.checkpoint_every, network, own)
        if (state := checkpoints.resume()).epochs:
            emit(Resumed(step="train", epoch=state.epochs, epochs=plan.epochs))
    progress = ProgressLogger(plan.epochs, len(rows.train), state.seconds)
    callbacks = [one for one in (FailOnNonFinite(), *own, progress, checkpoints) if one]
    validation = data.ordered_batches(rows.validation, plan.batch_size) if len(rows.validation) else None
    started = time.perf_counter()
    with translate_out_of_memory(plan.batch_size):
        seen = network.fit(
            data.shuffled_batches(rows.train, plan.batch_size, plan.seed, state.epochs),
            epochs=plan.epochs,
            initial_epoch=state.epochs,
            validation_data=validation,
            callbacks=callbacks,
            class_weight=_class_weights(plan.class_weights, rows),
            shuffle=False,  # the dataset shuffles itself
            verbose=0,
        )
    return History(
        metrics={
            name: [*state.metrics.get(name, []), *map(float, values)] for name, values in seen.history.items()
        },
        epochs=len(progress.seconds),
        stopped_early=len(progress.seconds) < plan.epochs,
        resumed_after=state.epochs,
        seconds=sum(state.seconds) + time.perf_counter() - started,
        samples_per_second=progress.samples_per_second,
        parameters=network.count_params(),
        packages=_packages(),
    )


def _checkpoint_store(store: Store | None, plan: Training, *identity: Any) -> CheckpointStore | None:
    """Return where the checkpoint of this training is; None when it makes none."""
    if not store or not plan.checkpoint_every:
        return None
    return CheckpointStore(open_objects(store), checkpoint.fingerprint_training(*identity))


def _packages() -> dict[str, str]:
    """Return the versions of what trained and exported the model."""
    names = (*PACKAGES, "jax") if BACKEND == "jax" else PACKAGES
    # TensorFlow's package is tensorflow or tensorflow-cpu
    versions = {"python": platform.python_version(), "tensorflow": tf.__version__}
    return versions | {name: version(name) for name in names}


def _class_weights(weights: Mapping[str, float] | str | None, rows: Features) -> dict[int, float] | None:
    """Return the weight of each label.

    Raises:
        TrainError: there is no class of a name.
    """
    names = rows.schema.names
    if weights is None:
        return None
    if isinstance(weights, str):
        counts = np.bincount(rows.train.targets, minlength=len(names))
        return {
            label: len(rows.train) / (len(names) * max(1, count))
            for label, count in enumerate(counts.tolist())
        }
    if unknown := weights.keys() - set(names):
        raise TrainError(
            f"training.class_weights has {min(unknown)!r}, which is no class of the data. The classes are "
            f"{', '.join(names)}."
        )
    return {label: weights.get(name, 1.0) for label, name in enumerate(names)}


def _callbacks(plan: Training, rows: Features) -> list[Any]:
    """Return the callbacks, early stopping last: it takes the weights that the others leave.

    Raises:
        TrainError: one watches validation rows, and there are none.
    """
    named = [*plan.callback_objects(), *filter(None, [plan.early_stopping_object()])]
    watching = [one for one in named if "monitor" in one.signature]
    if watching and not len(rows.validation):
        key = watching[0].key
        raise TrainError(
            f"{key} watches validation rows, but there are none. Raise data.validation, or remove {key}."
        )
    built = [one.build() for one in named]
    directions = plan.monitors(problems.describe(rows.schema.problem))
    for one in built:
        if getattr(one, "mode", "") == "auto":
            one.mode = "max" if directions[one.monitor.removeprefix("val_")] == "higher" else "min"
    return built
