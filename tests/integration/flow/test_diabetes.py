"""A regression from end to end: the shipped example, its report, and predictions of the served model."""

from pathlib import Path

import numpy as np
import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "diabetes.yaml"


def test_the_example_ends_with_a_champion_that_answers_in_the_unit_of_the_target(workspace):
    summary = workspace.json("run", EXAMPLE)
    assert (summary["state"], summary["decision"], summary["version"]) == ("succeeded", "promote", 1)
    metrics = summary["evaluation"]
    rmse = metrics["values"][metrics["primary"]]
    assert (metrics["primary"], rmse["direction"]) == ("rmse", "lower")
    assert 40 < rmse["low"] < rmse["value"] < rmse["high"] < 80
    assert 25 < float(summary["prediction"]["answer"]) < 346
    report = Path(summary["report"]).read_text()
    assert report.count("<circle") > metrics["rows"]  # two plots, and the ends of the curves
    np.save(workspace.folder / "patient.npy", np.array([59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.8598, 87]))
    (answer,) = workspace.json("predict", "diabetes", "patient.npy")["predictions"]
    assert answer["values"] == {"progression": pytest.approx(float(answer["answer"]), abs=0.1)}
