"""The command `modelyard plan`, and the report of the run after it."""

import json
from typing import Any

from modelyard.components.artifacts import History


def test_a_run_is_compared_with_its_plan(digits_plan: Any, digits: Any) -> None:
    (workspace, plan), (_, run) = digits_plan, digits
    assert plan["fit"] == "fits"
    assert plan["targets"].startswith("10 classes, with ")
    assert plan["flops_per_step"] > 0
    assert plan["train"]["total"]["value"] > 0
    (exceeded,) = plan["exceeded_limits"]
    assert "--budget 0 USD" in exceeded
    assert {step["name"]: step["cached"] for step in run["steps"]}.items() >= {
        "ingest": True,  # from the plan
        "preprocess": True,
        "train": False,
    }.items()
    folder = workspace.folder / ".modelyard" / "runs" / run["run"]
    saved_plan = json.loads((folder / "plan.json").read_text())
    assert saved_plan == {**plan, "exceeded_limits": []}
    (history,) = folder.glob("artifacts/*/train/history/history.json")
    assert History.model_validate_json(history.read_bytes()).parameters == plan["parameters"]
    page = (folder / "report.html").read_text()
    for row in ("Planned and actual values", "<td>train</td>", "<td>the exported model</td>"):
        assert row in page
    (model,) = folder.glob("artifacts/*/train/model")
    model_bytes = sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
    assert 0.9 < model_bytes / plan["storage"]["model"] < 1.1  # the probe exported the same files
