"""What a plan prints: one screen, with unknown said as unknown."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from modelyard.components.artifacts import read
from modelyard.pipelines.planning import planning
from modelyard.pipelines.planning.plan import Plan
from modelyard.pipelines.planning.render import show
from modelyard.pipelines.planning.residuals import Prediction


def shown(plan: Plan, everything: bool = False) -> str:
    text = io.StringIO()
    show(plan, Console(file=text, width=150), everything)
    return text.getvalue()


def test_what_nobody_measured_is_unknown(made: Any) -> None:
    plan = made()
    text = shown(plan)
    assert "train      unknown (--probe measures it)" in text
    assert "money      unknown (no price is known for this machine; --price gives one)" in text
    assert "10 more with --all" in text
    assert "to do      nothing before it can be started" in text
    assert len(text.splitlines()) < 40
    assert plan.refusals == ()


def test_the_accelerator_of_the_environment_decides(made: Any) -> None:
    plan = made("gke")
    assert (plan.place, plan.machine, plan.fit) == ("nvidia-l4", "nvidia-l4x1", "fits")
    assert plan.train.value
    assert plan.money.low  # on Spot, as the environment says
    assert plan.money.low < next(one for one in plan.offers if one.accelerator == "nvidia-l4").on_demand.low
    assert len(plan.spot) == 3
    text = shown(plan)
    assert "Spot, taken away every 6 h on average" in text
    named = [risk.what for risk in plan.risks]
    assert any(what.startswith("the Spot node is taken away") for what in named)
    assert "the pods wait for a node, in a queue or for quota" in named


def test_what_is_to_do_first_comes_before_what_can_go_wrong(made: Any) -> None:
    plan = made("gke")
    text = shown(plan)
    heads = [line.split("  ")[0] for line in text.splitlines()]
    assert heads.index("to do first") < heads.index("what can go wrong")
    assert "quota for nvidia-l4 x1" in text
    assert [one["how"] for one in plan.model_dump(mode="json")["effort"]] == [one.how for one in plan.effort]


def test_the_run_after_it_knows_what_was_planned_in_words(made: Any, tmp_path: Path) -> None:
    plan = made("gke")
    (path,) = (tmp_path / "plans").glob("*.json")
    kept = read(path, Prediction)
    assert kept.facts["memory"].startswith("fits in nvidia-l4: ")
    assert kept.facts["money"] in shown(plan)
    assert (kept.risks, kept.storage) == (plan.risks, plan.storage)
    assert kept.price
    assert plan.money.value == pytest.approx(kept.price * plan.train.value / 3600)


@pytest.mark.parametrize(("given", "kept"), [({}, None), ({"price": 2.5}, 2.5)])
def test_a_price_is_kept_also_without_a_time(
    made: Any, tmp_path: Path, given: dict[str, float], kept: float | None
) -> None:
    assert made(**given).money.value is None
    (path,) = (tmp_path / "plans").glob("*.json")
    assert read(path, Prediction).price == kept


def test_budget_and_deadline_refuse(made: Any) -> None:
    plan = made(on=("a100",), budget=0.01, deadline=0.001)
    assert len(plan.refusals) == 2
    assert "no: It takes" in shown(plan)


def test_everything_names_each_input(made: Any) -> None:
    text = shown(made(), everything=True)
    for word in ("measured", "given", "counted", "assumed", "unknown", "queue and quota", "tpu7x"):
        assert word in text


def test_a_row_that_was_left_out_is_told(made: Any, tmp_path: Path) -> None:
    row = {"memory_gb": 24, "bandwidth_gbps": 300, "sources": ["X"]}
    peaks = {"bf16": 120, "fp16": 120, "fp32": 30}
    rows = {
        "nvidia-l4": {**row, "peak_tflops": peaks},
        "nvidia-b200": {**row, "peak_tflops": {**peaks, "bf16": 1}},
    }
    file = tmp_path / "mine.yaml"
    file.write_text(json.dumps({"read": "2026-11-26", "sources": {"X": "x"}, "accelerators": rows}))
    text = shown(made(hardware=file))
    assert "left out: nvidia-b200: peak_tflops.bf16 1 is below fp32 30" in text.replace("\n", " ")


def test_a_plan_is_json_without_infinities(made: Any) -> None:
    json.dumps(made("gke").model_dump(mode="json"), allow_nan=False)


def test_a_plan_for_an_accelerator_leaves_the_last_plan_alone(made: Any, tmp_path: Path) -> None:
    made()
    (kept,) = (tmp_path / "plans").glob("*.json")
    before = kept.read_bytes()
    made(on=("l4",))
    assert kept.read_bytes() == before


def test_a_model_that_no_device_holds_is_named_so(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = planning.measure

    def huge(*arguments: Any) -> Any:
        traced, probed, wall = whole(*arguments)
        return traced.model_copy(update={"weights": 10**12, "gradients": 10**12}), probed, wall

    monkeypatch.setattr(planning, "measure", huge)
    reasons = made().refusals
    assert any(reason.startswith("No single device of the list holds the model") for reason in reasons)
    assert any("do not fit into this machine's memory" in reason for reason in reasons)
