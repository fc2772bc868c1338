"""The regression example from end to end, in a storage plugin."""

from pathlib import Path

import numpy as np
import pytest

from modelyard.components.store.models import open_store
from modelyard.components.store.settings import Store

EXAMPLE = Path(__file__).parents[3] / "examples" / "diabetes.yaml"
URL = "shelf://models/of/tests"


@pytest.mark.usefixtures("shelf_storage")
def test_the_example_promotes_a_champion_in_a_storage_plugin(workspace, tmp_path):
    summary = workspace.json("run", EXAMPLE, settings=(f"store.url={URL}",))
    assert (summary["state"], summary["decision"], summary["version"]) == ("succeeded", "promote", 1)
    metrics = summary["evaluation"]
    rmse = metrics["values"][metrics["primary"]]
    assert (metrics["primary"], rmse["direction"]) == ("rmse", "lower")
    assert 40 < rmse["low"] < rmse["value"] < rmse["high"] < 80
    assert summary["prediction"]["version"] == 1
    assert 25 < float(summary["prediction"]["text"]) < 346
    report = Path(summary["report"]).read_text()
    assert report.count("<circle") > metrics["examples"]  # two plots, and the ends of the curves
    np.save(workspace.folder / "patient.npy", np.array([59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.8598, 87]))
    (prediction,) = workspace.json("predict", "diabetes", "patient.npy", "--store", URL)["predictions"]
    assert prediction["values"] == {"progression": pytest.approx(float(prediction["text"]), abs=0.1)}
    models = open_store(Store(url=URL))
    assert models.champion("diabetes").version == 1
    assert models.fetch("diabetes", 1, tmp_path / "version").run == summary["fingerprint"]
    assert not (workspace.folder / ".modelyard" / "models").exists()
