"""Plans and what became of them, over real folders of runs."""

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from components.artifacts import History, write
from pipelines.compiler import LOCAL
from pipelines.config import Config, load
from pipelines.plan import comparison, residuals
from pipelines.plan.quantity import Quantity, exactly, unknown
from pipelines.plan.residuals import Prediction, Residual, correction, keep, key, machine, past_steps, planned
from pipelines.plan.risk import Risk
from pipelines.plan.storage import Storage
from pipelines.plan.time import Duration
from pipelines.plan.written import Written
from pipelines.runs import RunSummary, Step, finish

HERE = machine(LOCAL)
PARTS = Duration(
    once=10.0,
    epoch=2.0,
    validation=0.5,
    epochs=20,
    least_epochs=20,
    low=0.9,
    high=1.1,
    busy=1.0,
    around=0.0,
    start=6.0,
    compile=2.0,
    export=2.0,
    step=0.01,
    input_share=0.0,
    overhead=None,
)


STORAGE = Storage(raw=64_000, features=64_000, model=600_000, checkpoint=1, run=728_000, version=600_000)


@pytest.fixture
def config() -> Config:
    return load()


def prediction(train: float | None = 50.0, where: str = HERE, **said: Any) -> Prediction:
    found = unknown("no probe") if train is None else Quantity(value=train, low=40.0, high=60.0)
    return Prediction(
        created="2026-11-26T10:00:00+00:00",
        machine=where,
        rows={},
        train=found,
        whole=exactly(train) if train else found,
        money=unknown("no price"),
        parts=PARTS if train else None,
        refusals=(),
        **said,
    )


def run(
    home: Path, config: Config, name: str, seconds: float, epochs: int = 20, cached: bool = False
) -> Path:
    """Leave what a run leaves, and record it."""
    folder = home / "runs" / name
    history, model = (folder / "artifacts" / "pipeline" / "train" / name for name in ("history", "model"))
    if not cached:
        history.mkdir(parents=True)
        model.mkdir()
        (model / "model.onnx").write_bytes(bytes(900_000))
        write(
            history / "history.json",
            History(
                metrics={},
                epochs=epochs,
                stopped_early=False,
                seconds=seconds,
                samples_per_second=1.0,
                parameters=1,
                packages={},
            ),
        )
    folder.mkdir(parents=True, exist_ok=True)
    steps = (
        Step(name="ingest", state="succeeded", seconds=0.0, cached=True),
        Step(name="train", state="succeeded", seconds=seconds, cached=cached),
        Step(name="evaluate", state="succeeded", seconds=3.0, cached=cached),
    )
    report = folder / "report.html"
    report.write_text("<main>\n</main>\n")
    summary = RunSummary(
        run=name,
        model="digits",
        state="succeeded",
        steps=steps,
        seconds=seconds + 5,
        store="",
        report=str(report),
    )
    finish(folder, summary)
    comparison.keep(folder, config, LOCAL, summary)
    return folder


def recorded(folder: Path) -> Residual:
    return Residual.model_validate_json((folder / "plan.json").read_bytes())


def rows(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return what the report compares, by name: planned, actual, actual / planned."""
    cells = re.findall(r"<td>([^<]*)</td>", (folder / "report.html").read_text())
    return {name: tuple(said) for name, *said in zip(*[iter(cells)] * 4, strict=True)}


def test_a_run_keeps_what_was_planned_and_what_happened(tmp_path: Path, config: Config) -> None:
    keep(tmp_path, key(config, LOCAL), prediction())
    folder = run(tmp_path, config, "one", 55.0)
    found = recorded(folder)
    assert (found.planned, found.actual, found.ratio) == (50.0, 55.0, 1.1)
    assert (found.planned_whole, found.actual_whole) == (50.0, 60.0)
    page = (folder / "report.html").read_text()
    assert "Plan against actual" in page
    assert "50 s (40 s to 60 s)" in page
    assert "1.10" in page
    assert page.rstrip().endswith("</main>")


def test_the_report_says_what_the_plan_said(tmp_path: Path, config: Config) -> None:
    risk = Risk(what="the node is taken away", probability="unknown", lowers="spot: false")
    facts = {"memory": "fits in this machine's memory"}
    keep(tmp_path, key(config, LOCAL), prediction(facts=facts, risks=(risk,)))
    page = html.unescape((run(tmp_path, config, "one", 55.0) / "report.html").read_text())
    assert "fits in this machine's memory</dd>" in page
    assert "<dt>the node is taken away</dt>" in page
    assert "unknown; lowered by spot: false</dd>" in page


def test_what_a_run_wrote_is_compared_with_what_its_steps_were_to_write(
    tmp_path: Path, config: Config
) -> None:
    """ingest came from the cache: its shards are planned and not written, so they count on neither side."""
    keep(tmp_path, key(config, LOCAL), prediction(storage=STORAGE))
    folder = run(tmp_path, config, "one", 55.0)
    found = recorded(folder)
    assert found.planned_written == Written(model=600_000, artifacts=600_000)
    assert found.written
    assert found.written.model == 900_000
    assert found.written.artifacts == 900_000 + (next(folder.rglob("history.json"))).stat().st_size
    assert rows(folder)["the exported model"] == ("600 kB", "900 kB", "1.50")


def test_what_was_not_measured_is_not_compared(tmp_path: Path, config: Config) -> None:
    keep(tmp_path, key(config, LOCAL), prediction(storage=STORAGE, price=36.0))
    folder = run(tmp_path, config, "one", 0.1, cached=True)
    assert recorded(folder).written == Written()
    assert set(rows(folder)) == {"train", "the whole run"}
    assert rows(folder)["train"] == ("–", "from the cache", "–")


def test_money_is_the_planned_price_for_the_time_that_it_took(tmp_path: Path, config: Config) -> None:
    keep(tmp_path, key(config, LOCAL), prediction(price=36.0))
    named = "money for train, at the planned price"
    assert rows(run(tmp_path, config, "one", 55.0))[named] == ("0.50 USD", "0.55 USD", "1.10")
    keep(tmp_path, key(config, LOCAL), prediction(price=36.0, where="nvidia-l4x1"))
    assert named not in rows(run(tmp_path, config, "two", 55.0))
    keep(tmp_path, key(config, LOCAL), prediction())
    assert named not in rows(run(tmp_path, config, "three", 55.0))


def test_a_run_that_stopped_early_is_compared_with_the_epochs_it_had(tmp_path: Path, config: Config) -> None:
    keep(tmp_path, key(config, LOCAL), prediction())
    folder = run(tmp_path, config, "one", 30.0, epochs=10)
    assert recorded(folder).planned == pytest.approx(30.0)
    assert rows(folder)["train"] == ("30 s for the 10 epochs that there were", "30 s", "1.00")


def test_a_run_that_nobody_planned_says_so(tmp_path: Path, config: Config) -> None:
    folder = run(tmp_path, config, "one", 55.0)
    assert recorded(folder).planned is None
    assert "Nobody planned this run" in (folder / "report.html").read_text()


def test_a_plan_for_another_machine_is_not_compared(tmp_path: Path, config: Config) -> None:
    keep(tmp_path, key(config, LOCAL), prediction(where="nvidia-l4x1"))
    assert recorded(run(tmp_path, config, "one", 55.0)).ratio is None


def test_a_cached_training_took_no_time_of_its_own(tmp_path: Path, config: Config) -> None:
    keep(tmp_path, key(config, LOCAL), prediction())
    found = recorded(run(tmp_path, config, "one", 0.1, cached=True))
    assert (found.planned, found.actual, found.planned_whole) == (None, None, None)


def test_a_run_that_failed_leaves_nothing(tmp_path: Path, config: Config) -> None:
    failed = RunSummary(run="one", model="digits", state="failed", steps=(), seconds=1.0, store="")
    assert residuals.record(tmp_path, config, LOCAL, failed) is None
    assert list(tmp_path.iterdir()) == []


def test_two_runs_are_too_few_to_correct_a_plan(tmp_path: Path, config: Config) -> None:
    keep(tmp_path, key(config, LOCAL), prediction())
    for name in ("one", "two"):
        run(tmp_path, config, name, 55.0)
    assert correction(tmp_path, HERE) is None


def test_some_runs_move_a_plan_and_say_how_many_they_are(tmp_path: Path, config: Config) -> None:
    keep(tmp_path, key(config, LOCAL), prediction())
    for name, seconds in (("one", 55.0), ("three", 60.0), ("two", 90.0)):
        run(tmp_path, config, name, seconds)
    found = correction(tmp_path, HERE)
    assert found
    assert found.value == pytest.approx(1.2)
    assert found.low == pytest.approx(0.85 * 1.2)  # no narrower than a plan without any run
    assert found.high == pytest.approx(1.8)
    assert "last 3 planned runs" in found.why
    assert correction(tmp_path, "another machine") is None


def test_a_corrected_plan_is_measured_by_what_it_was_before(tmp_path: Path, config: Config) -> None:
    keep(tmp_path, key(config, LOCAL), prediction(train=75.0))  # the probe said 50, earlier runs made it 75
    found = recorded(run(tmp_path, config, "one", 75.0))
    assert (found.planned, found.uncorrected, found.ratio) == (75.0, 50.0, 1.5)


def test_many_runs_give_quantiles(tmp_path: Path, config: Config) -> None:
    keep(tmp_path, key(config, LOCAL), prediction())
    for number in range(11):
        run(tmp_path, config, f"{number:02}", 50.0 + number)
    found: Any = correction(tmp_path, HERE)
    assert (found.value, found.low, found.high) == pytest.approx((1.1, 1.02, 1.18))


def test_steps_are_remembered_of_the_same_configuration(tmp_path: Path, config: Config) -> None:
    run(tmp_path, config, "one", 55.0)
    assert past_steps(tmp_path, key(config, LOCAL)) == {"evaluate": 3.0}
    assert past_steps(tmp_path, key(load(None, ["training.epochs=3"]), LOCAL)) == {}


def test_what_an_older_modelyard_wrote_is_left_out(tmp_path: Path, config: Config) -> None:
    (run(tmp_path, config, "one", 55.0) / "plan.json").write_text('{"run": "one"}')
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "key.json").write_text("{}")
    assert correction(tmp_path, HERE) is None
    assert planned(tmp_path, "key") is None


def test_a_plan_from_before_it_was_kept_in_words_still_counts(tmp_path: Path, config: Config) -> None:
    keep(tmp_path, key(config, LOCAL), prediction())
    (kept,) = (tmp_path / "plans").glob("*.json")
    said = json.loads(kept.read_text())
    for name in ("price", "storage", "facts", "risks"):
        del said[name]
    kept.write_text(json.dumps(said))
    folder = run(tmp_path, config, "one", 55.0)
    assert recorded(folder).ratio == 1.1
    page = (folder / "report.html").read_text()
    assert "<h2>Plan against actual</h2>" in page
    assert "<h2>Plan</h2>" not in page
    said = json.loads((folder / "plan.json").read_text())
    for name in ("planned_written", "written"):
        del said[name]
    (folder / "plan.json").write_text(json.dumps(said))
    assert past_steps(tmp_path, key(config, LOCAL)) == {"evaluate": 3.0}


@pytest.mark.parametrize(
    "override",
    ["training.batch_size=8", "model.filters=[8]", "data.validation=0.3", "training.optimizer=sgd"],
)
def test_what_changes_the_time_changes_the_key(config: Config, override: str) -> None:
    assert key(config, LOCAL) != key(load(None, [override]), LOCAL)


def test_what_does_not_change_the_time_does_not(config: Config) -> None:
    assert key(config, LOCAL) == key(load(None, ["serving.port=9999", "gate.floor=0.1"]), LOCAL)
