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
from modelyard.components.errors import TrainError
from modelyard.components.events import Resumed, emit
from modelyard.components.store.settings import Store
from modelyard.components.store.storage import open_objects
from modelyard.components.train import checkpoint, code_archive, data, optimizers, user_code
from modelyard.components.train import model as networks
from modelyard.components.train.backend import BACKEND, devices, keras, tf, translate_out_of_memory
from modelyard.components.train.callbacks import Finite, Progress
from modelyard.components.train.checkpoint import Checkpoints, CheckpointStore, TrainingState
from modelyard.components.train.data import Features
from modelyard.components.train.export import export
from modelyard.components.train.settings import EarlyStopping, Model, Training
from modelyard.components.train.spec import TrainSpec

CHECKED_ROWS = 32
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
        DataError: the features are malformed.
        TrainError: the accelerator that is asked for is not there, or the model cannot be built, trained or
            exported.
        StoreError: the user's own code cannot be fetched.
    """
    settings, plan = spec.model, spec.training
    print(f"training on {', '.join(devices())} with {BACKEND}", flush=True)  # noqa: T201
    rows = Features.read(Path(features))
    keras.utils.set_random_seed(plan.seed)
    folder = code_archive.folder_of(spec.code) if spec.code else Path()
    network = networks.build(
        settings, rows.schema, rows.normalization, folder, spec.code_sha256, plan.precision
    )
    compile_(network, settings, plan, rows.schema, rows.normalization, len(rows.train))
    exported = networks.for_export(network, settings, rows.schema)
    checked = rows.train.gather(np.arange(min(CHECKED_ROWS, len(rows.train))))
    with user_code.explained(folder, "Training") if settings.build else nullcontext():
        if settings.build:
            problems.of(rows.schema.problem).check_untrained(
                np.asarray(network(checked, training=False)), settings.logits
            )
            # What cannot be exported fails now, and not after hours.
            with tempfile.TemporaryDirectory() as rehearsal:
                export(exported, rows.schema, rows.normalization, checked, Path(rehearsal))
        identity = origin, rows.schema.model_dump_json(), settings.text(), plan.decisive(), spec.code_sha256
        checkpoint_store = _checkpoint_store(spec.store, plan, *identity)
        record = fit(network, rows, plan, checkpoint_store)
    with artifacts.writing(Path(history)) as written, artifacts.writing(Path(model)) as directory:
        export(exported, rows.schema, rows.normalization, checked, directory)
        artifacts.write(written / "history.json", record)
    if checkpoint_store:
        checkpoint_store.clear()


def compile_(
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
        TrainError: the optimizer refuses its settings.
    """
    network.compile(
        optimizers.build(plan.optimizer, plan.optimizer_settings),
        **problems.of(schema.problem).compile_arguments(plan.loss, settings.logits, normalization),
        steps_per_execution=min(plan.steps_per_execution, math.ceil(rows / plan.batch_size)),
    )


def fit(
    network: Any, rows: Features, plan: Training, checkpoint_store: CheckpointStore | None = None
) -> History:
    """Fit a compiled network, with validation after each epoch, and return what happened.

    Every training row is seen exactly once an epoch. With early stopping, the best epoch's weights are
    those that stay.

    Args:
        network: what `compile_` compiled.
        rows: what it learns.
        plan: how.
        checkpoint_store: where its checkpoint is; None for none.

    Raises:
        TooLargeError: the memory of the device is too small.
        TrainError: a metric became NaN or infinite, or early stopping has no validation rows.
    """
    stopping = _early_stopping(plan.early_stopping, rows) if plan.early_stopping else None
    state, checkpoints = TrainingState(), None
    if checkpoint_store:
        network.optimizer.build(network.trainable_variables)
        checkpoints = Checkpoints(checkpoint_store, plan.checkpoint_every, network, stopping)
        if (state := checkpoints.resume()).epochs:
            emit(Resumed(step="train", epoch=state.epochs, epochs=plan.epochs))
    progress = Progress(plan.epochs, len(rows.train), state.seconds)
    callbacks = [one for one in (Finite(), progress, stopping, checkpoints) if one]
    validation = data.ordered(rows.validation, plan.batch_size) if len(rows.validation) else None
    started = time.perf_counter()
    with translate_out_of_memory(plan.batch_size):
        seen = network.fit(
            data.shuffled(rows.train, plan.batch_size, plan.seed, state.epochs),
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
    return CheckpointStore(open_objects(store), checkpoint.training_key(*identity))


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


def _early_stopping(settings: EarlyStopping, rows: Features) -> Any:
    if not len(rows.validation):
        raise TrainError(
            f"training.early_stopping watches {settings.monitor}, but there are no validation rows. Raise "
            "data.validation, or remove training.early_stopping."
        )
    monitors = problems.describe(rows.schema.problem).monitors
    direction = monitors.get(settings.monitor.removeprefix("val_"), "lower")
    return keras.callbacks.EarlyStopping(
        monitor=settings.monitor,
        mode="max" if direction == "higher" else "min",
        patience=settings.patience,
        min_delta=settings.min_delta,
        restore_best_weights=True,
    )
