"""Errors of the export, without a training."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from modelyard.components.errors import TrainError
from modelyard.components.train import export
from modelyard.components.train.backend import keras

EXAMPLES = np.zeros((2, 3), np.float32)


def raise_error(*_: Any, **__: Any) -> None:
    raise RuntimeError("no such operation")


def test_nan_predictions_are_not_exported(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input(EXAMPLES.shape[1:]), keras.layers.Rescaling(np.nan)])
    unused: Any = None
    with pytest.raises(TrainError, match=r"predicts nan .*learning_rate"):
        export.export(model, unused, unused, EXAMPLES, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_prediction_of_another_shape_is_an_error() -> None:
    with pytest.raises(TrainError, match=r"model\.onnx .* \(2, 3\), .* \(1, 3\)"):
        export._check_predictions("model.onnx", EXAMPLES, EXAMPLES[:1], np.ones(1))


def test_a_model_that_onnx_runtime_cannot_load_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(TrainError, match="ONNX Runtime cannot load the exported model"):
        export._load_onnx(tmp_path / "model.onnx", "output")


def test_errors_of_keras_while_saving_are_reported(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="SavedModel: RuntimeError: no such operation"):
        export._write_saved_model(SimpleNamespace(export=raise_error), tmp_path)
    with pytest.raises(TrainError, match=r"saved as \.keras: RuntimeError: no such operation"):
        export._write_keras(SimpleNamespace(save=raise_error), tmp_path)


def test_a_killed_conversion_is_an_error(tmp_path: Path, monkeypatch: Any) -> None:
    process = subprocess.CompletedProcess([], -9, stdout="")
    monkeypatch.setattr(export.subprocess, "run", lambda *_, **__: process)
    with pytest.raises(TrainError, match="ended with exit code -9: no output"):
        export._convert_in_child_process("output", tmp_path)


def test_a_model_that_tensorflow_cannot_run_is_an_error(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(export.sys, "argv", ["export", str(tmp_path), "output", json.dumps(sys.path)])
    with pytest.raises(TrainError, match=r"Use only keras\.ops"):
        export.main()
