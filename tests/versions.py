"""Signatures, metrics and published versions, for tests and benchmarks without a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from modelyard.components import artifacts
from modelyard.components.artifacts import (
    Decision,
    Dtype,
    Duplicates,
    History,
    ImageFormat,
    Manifest,
    Metric,
    Metrics,
    Schema,
    Signature,
    Statistics,
)
from modelyard.components.problems import get_description
from modelyard.components.problems.base import build_signature
from modelyard.components.store.models import ModelStore


def classifier_signature(
    shape: tuple[int, ...], dtype: Dtype, names: tuple[str, ...], image: ImageFormat | None = None
) -> Signature:
    """Return the signature of a classifier."""
    schema = Schema(shape=shape, dtype=dtype, problem="classification", names=names, splits={}, image=image)
    return build_signature(schema, get_description("classification"))


def regressor_signature(shape: tuple[int, ...], names: tuple[str, ...]) -> Signature:
    """Return the signature of a regression model."""
    schema = Schema(shape=shape, dtype="float32", problem="regression", names=names, splits={})
    return build_signature(schema, get_description("regression"))


def accuracy_metrics(value: float, low: float, high: float, examples: int = 10, **more: Any) -> Metrics:
    """Return the metrics of a classifier with this accuracy."""
    values = {
        "accuracy": Metric(value=value, low=low, high=high, direction="higher"),
        "log_loss": Metric(value=0.1, low=0.1, high=0.1, direction="lower"),
    }
    return Metrics(problem="classification", examples=examples, primary="accuracy", values=values, **more)


def data_statistics(**fields: Any) -> Statistics:
    """Return statistics of a dataset with duplicates and leakage."""
    values = {
        "targets": {},
        "duplicates": Duplicates(count=2),
        "conflicting_labels": Duplicates(count=0),
        "leakage": Duplicates(count=1),
        "scaling": "values are taken as they are",
        "mean": 1.0,
        "minimum": 0.0,
        "maximum": 200.0,
    } | fields
    return Statistics.model_validate(values)


def training_history(**fields: Any) -> History:
    """Return the history of a training of two epochs."""
    values = {"metrics": {}, "epochs": 2, "stopped_early": False, "seconds": 1.5, "parameters": 5678}
    values |= {"examples_per_second": 1234.0, "packages": {"keras": "3.15.0"}}
    return History.model_validate(values | fields)


def publish(
    models: ModelStore, name: str, files: Mapping[str, Path], signature: Signature, **fields: Any
) -> int:
    """Publish a version and return its number.

    Args:
        models: the store.
        name: the model's name.
        files: files of the version by their path in it.
        signature: inputs and outputs of the model.
        fields: other fields of the manifest; the default of `run` is a new id.
    """
    values = {
        "run": uuid4().hex,
        "created": "2026-01-01T00:00:00+00:00",
        "data": "",
        "recipe_sha256": "",
        "config": {},
        "metrics": accuracy_metrics(1, 1, 1),
        "decision": Decision(decision="promote", reason="good"),
        "packages": {},
    } | fields
    version = models.reserve(name, values["run"])
    checksums = {path: artifacts.sha256(file) for path, file in files.items()}
    manifest = Manifest(model=name, version=version, files=checksums, signature=signature, **values)
    models.publish(name, version, dict(files), manifest)
    return version
