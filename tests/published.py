"""Versions in a store as deploy publishes them, for tests and benchmarks that need one without a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from modelyard.components import artifacts
from modelyard.components.artifacts import Decision, Interval, Manifest, Metrics, Signature
from modelyard.components.store.models import ModelStore

CERTAIN = Interval(value=1, low=1, high=1)


def publish(
    models: ModelStore, name: str, files: Mapping[str, Path], signature: Signature, **facts: Any
) -> int:
    """Publish a version and return its number.

    Args:
        models: the store.
        name: the model's name.
        files: those of the version, by their path inside it.
        signature: what the model takes and gives.
        facts: other fields of the manifest; `run` is one of its own if it is left out.
    """
    said = {
        "run": uuid4().hex,
        "created": "2026-01-01T00:00:00+00:00",
        "data": "",
        "recipe_sha256": "",
        "config": {},
        "metrics": Metrics(rows=1, accuracy=CERTAIN, loss=0, per_class=(), confusion=()),
        "decision": Decision(decision="promote", reason="good"),
        "packages": {},
    } | facts
    version = models.reserve(name, said["run"])
    sums = {path: artifacts.sha256(file) for path, file in files.items()}
    manifest = Manifest(model=name, version=version, files=sums, signature=signature, **said)
    models.publish(name, version, dict(files), manifest)
    return version
