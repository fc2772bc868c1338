"""Planned and actual values in the report of a run."""

from pathlib import Path
from typing import Any

import pytest

from modelyard.pipelines.config.config import load
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.planning import comparison
from modelyard.pipelines.planning.plan import Plan
from modelyard.pipelines.runners.base import RunSummary, StepStatus
from tests.unit.planning.conftest import MakePlan

PAGE = "<html><main>before</main></html>"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path))
    run_folder = tmp_path / "runs" / "run-1"
    model = run_folder / "artifacts" / "pipeline" / "train" / "model"
    model.mkdir(parents=True)
    (model / "model.onnx").write_bytes(b"0" * 26_000_000)
    (run_folder / "report.html").write_text(PAGE)
    return run_folder


def summary(folder: Path, cached: bool = False, **changes: Any) -> RunSummary:
    train = StepStatus(name="train", state="succeeded", seconds=60.0, cached=cached)
    fields = {"state": "succeeded", "report": str(folder / "report.html"), **changes}
    return RunSummary(run="run-1", model="digits", steps=(train,), seconds=70.0, store="models", **fields)


def plan_key() -> str | None:
    settings = ["training.epochs=10"]
    return comparison.find_plan_key(load(None, settings), load_environment("local", settings))


def report(folder: Path) -> str:
    return (folder / "report.html").read_text()


def test_the_report_of_a_planned_run_compares_plan_and_actual(make_plan: MakePlan, folder: Path) -> None:
    plan = make_plan(probe=True, price=3.0)
    comparison.add_plan_to_report(folder, plan_key(), summary(folder))
    page = report(folder)
    assert page.index("before") < page.index("Planned and actual values")
    assert page.endswith("</main></html>")
    assert "1,000,000 parameters" in page
    for row, ratio in (("train", None), ("cost of train", None), ("the exported model", "2.00")):
        assert f"<td>{row}" in page
        assert ratio is None or f"<td>{ratio}</td>" in page
    saved = Plan.model_validate_json((folder / "plan.json").read_bytes())
    assert saved.train == plan.train


def test_a_cached_step_is_not_compared(make_plan: MakePlan, folder: Path) -> None:
    make_plan(probe=True)
    comparison.add_plan_to_report(folder, plan_key(), summary(folder, cached=True))
    assert "1,000,000 parameters" in report(folder)
    assert "Planned and actual values" not in report(folder)


def test_without_a_probe_the_size_of_the_model_is_compared(make_plan: MakePlan, folder: Path) -> None:
    make_plan()
    comparison.add_plan_to_report(folder, plan_key(), summary(folder))
    assert "<td>the exported model" in report(folder)
    assert "<td>train</td>" not in report(folder)


@pytest.mark.parametrize("changes", [{"state": "failed"}, {"report": None}])
def test_a_run_that_failed_or_has_no_report_is_not_compared(
    make_plan: MakePlan, folder: Path, changes: dict[str, Any]
) -> None:
    make_plan()
    comparison.add_plan_to_report(folder, plan_key(), summary(folder, **changes))
    assert report(folder) == PAGE


def test_the_report_of_an_unplanned_run_is_not_changed(folder: Path) -> None:
    comparison.add_plan_to_report(folder, plan_key(), summary(folder))
    comparison.add_plan_to_report(folder, None, summary(folder))
    assert report(folder) == PAGE


def test_an_unreadable_report_does_not_fail_the_run(
    make_plan: MakePlan, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_plan()
    comparison.add_plan_to_report(folder, plan_key(), summary(folder, report=str(folder / "none.html")))
    assert "plan" in capsys.readouterr().err


def test_unreadable_code_has_no_plan_key(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)  # a fingerprint does not follow links
    (tmp_path / "code.py").touch()
    config = load(None, [f"model={{build: 'code:build', code: {tmp_path}}}"])
    assert comparison.find_plan_key(config, load_environment("local")) is None
