"""Plans and what became of them, over real folders of runs."""

import html
import json
import re
from pathlib import Path

import pytest

from modelyard.pipelines.compile.compiler import LOCAL
from modelyard.pipelines.config.config import Config, load
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.planning import comparison, residuals
from modelyard.pipelines.planning.residuals import Prediction, keep, key, machine, past_steps, planned
from modelyard.pipelines.planning.risk import Risk
from modelyard.pipelines.planning.storage import Storage
from modelyard.pipelines.planning.written import Written
from modelyard.pipelines.runners.runs import RunSummary, Step
from tests.unit.plan.ended import PARTS, prediction, recorded, run

STORAGE = Storage(raw=64_000, features=64_000, model=600_000, checkpoint=1, run=728_000, version=600_000)


@pytest.fixture
def config() -> Config:
    return load()


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
    assert residuals.record(tmp_path, key(config, LOCAL), LOCAL, failed, None) is None
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_went_on_from_a_checkpoint_is_told_apart(tmp_path: Path, config: Config) -> None:
    keep(tmp_path, key(config, LOCAL), prediction())
    folder = run(tmp_path, config, "one", 12.0, resumed_after=15)
    assert recorded(folder).planned is None
    assert rows(folder)["train"] == ("–", "12 s after epoch 15, from a checkpoint", "–")


def test_how_many_epochs_there_were_has_to_be_known_where_training_may_stop_early(
    tmp_path: Path, config: Config
) -> None:
    keep(tmp_path, key(config, LOCAL), prediction())
    assert recorded(run(tmp_path, config, "all", 50.0, told=False)).planned == 50.0
    early = prediction().model_copy(update={"parts": PARTS.model_copy(update={"least_epochs": 4})})
    keep(tmp_path, key(config, LOCAL), early)
    assert recorded(run(tmp_path, config, "some", 20.0, told=False)).planned is None


def test_a_plan_is_kept_whole_beside_another_that_is_kept_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(tmp_path, "key", prediction())

    def killed(path: Path, record: Prediction) -> None:
        path.write_text(record.model_dump_json()[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(residuals, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        keep(tmp_path, "key", prediction(train=75.0))
    assert planned(tmp_path, "key") == prediction()


def test_what_cannot_be_recorded_is_told_and_fails_no_run(
    tmp_path: Path, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs" / "one" / "plan.json").mkdir(parents=True)
    run(tmp_path, config, "one", 55.0)
    assert "is not recorded" in capsys.readouterr().err
    assert (tmp_path / "runs" / "one" / "plan.json").is_dir()


def test_what_cannot_be_identified_before_a_run_is_compared_with_nothing(tmp_path: Path) -> None:
    gone = load(None, ["data.kind=npz", f"data.source={tmp_path / 'gone.npz'}"])
    there = load_environment("kind")
    assert comparison.identity(gone, there) is None
    failed = RunSummary(run="one", model="digits", state="succeeded", steps=(), seconds=1.0, store="")
    comparison.keep(tmp_path, None, there, failed, None)
    assert list(tmp_path.iterdir()) == []


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


@pytest.mark.parametrize(
    "override",
    [
        "environment.pipeline_root=gs://another/root",
        "environment.keras_backend=jax",
        "environment.steps.train.cpu=8",
        "environment.steps.train.memory=16Gi",
        "environment.steps.train.node_selector={pool: fast}",
    ],
)
def test_another_place_has_times_of_its_own(config: Config, override: str) -> None:
    one, other = load_environment("kind"), load_environment("kind", [override])
    assert key(config, one) != key(config, other)
    assert machine(one) != machine(other)


def test_what_does_not_change_the_time_does_not(config: Config) -> None:
    assert key(config, LOCAL) == key(load(None, ["serving.port=9999", "gate.floor=0.1"]), LOCAL)


def test_a_run_in_which_nothing_was_new_measures_nothing(tmp_path: Path, config: Config) -> None:
    keep(tmp_path, key(config, LOCAL), prediction())
    steps = tuple(
        Step(name=name, state="skipped", seconds=0.0, cached=False)
        for name in ("ingest", "train", "evaluate")
    )
    unchanged = RunSummary(
        run="one",
        model="digits",
        state="succeeded",
        decision="unchanged",
        steps=(Step(name="fingerprint", state="succeeded", seconds=0.3, cached=False), *steps),
        seconds=1.0,
        store="",
    )
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    found = residuals.record(folder, key(config, LOCAL), LOCAL, unchanged, None)
    assert found
    assert (found.planned, found.actual, found.planned_whole) == (None, None, None)
