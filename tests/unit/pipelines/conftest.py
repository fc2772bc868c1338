"""A store with two versions of a small model, in an empty working directory."""

from pathlib import Path

import pytest

from modelyard.components import artifacts
from modelyard.components.artifacts import Golden
from modelyard.components.store.models import ModelStore, open_store
from modelyard.components.store.settings import Store
from tests.onnx_models import save_mean_model
from tests.versions import accuracy_metrics, classifier_signature, publish

SIGNATURE = classifier_signature((2, 2), "uint8", ("dark", "bright"))


@pytest.fixture(autouse=True)
def _empty_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, without the variables of the user."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MODELYARD_HOME", raising=False)
    monkeypatch.delenv("MODELYARD_STORE__URL", raising=False)


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    """The default store of the working directory with two versions of `tiny`; version 1 is the champion."""
    models = open_store(Store(url=str(tmp_path / ".modelyard/models")))
    model, golden = tmp_path / "model.onnx", tmp_path / "golden.json"
    save_mean_model(model, SIGNATURE)
    instances = [[[0, 0], [0, 0]], [[255, 255], [255, 255]]]
    predictions = [[1.0, 0.0], [0.0, 1.0]]
    artifacts.write(golden, Golden(problem="classification", instances=instances, predictions=predictions))
    metrics = accuracy_metrics(0.9, 0.8, 1.0)
    for run in ("first", "second"):
        publish(
            models,
            "tiny",
            {"model.onnx": model, "golden.json": golden},
            SIGNATURE,
            config={"serving": {"port": 1}},  # no server listens there
            run=run,
            data="d",
            recipe_sha256="c",
            metrics=metrics,
        )
    models.promote("tiny", 1, reason="first promotion", by="test")
    return models
