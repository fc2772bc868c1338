"""What earlier runs say about the next plan, and which of them say nothing."""

from pathlib import Path
from typing import Any

import pytest

from modelyard.pipelines.compile.compiler import LOCAL
from modelyard.pipelines.config.config import Config, load
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.planning.residuals import correction, keep, key, machine, past_steps, planned
from tests.unit.plan.ended import HERE, PARTS, ROWS, prediction, recorded, run


@pytest.fixture
def config() -> Config:
    return load()


def test_two_runs_are_too_few_to_correct_a_plan(tmp_path: Path, config: Config) -> None:
    keep(tmp_path, key(config, LOCAL), prediction())
    for name in ("one", "two"):
        run(tmp_path, config, name, 55.0)
    assert correction(tmp_path, HERE, key(config, LOCAL)) is None


def test_some_runs_move_a_plan_and_say_how_many_they_are(tmp_path: Path, config: Config) -> None:
    keep(tmp_path, key(config, LOCAL), prediction())
    for name, seconds in (("one", 55.0), ("three", 60.0), ("two", 90.0)):
        run(tmp_path, config, name, seconds)
    found = correction(tmp_path, HERE, key(config, LOCAL))
    assert found
    assert found.value == pytest.approx(1.2)
    assert found.low == pytest.approx(0.85 * 1.2)  # no narrower than a plan without any run
    assert found.high == pytest.approx(1.8)
    assert "last 3 planned runs of this configuration on this machine" in found.why
    assert correction(tmp_path, HERE, "another configuration")
    assert correction(tmp_path, "another machine", key(config, LOCAL)) is None


def test_enough_runs_of_the_same_configuration_say_more_than_those_of_others(
    tmp_path: Path, config: Config
) -> None:
    other = load(None, ["training.batch_size=8"])
    for one, slow in ((config, 1), (other, 3)):
        keep(tmp_path, key(one, LOCAL), prediction())
        for number in range(3):
            run(tmp_path, one, f"{slow}-{number}", 50.0 * slow)
    said: list[Any] = [
        correction(tmp_path, HERE, mine) for mine in (key(config, LOCAL), key(other, LOCAL), "new")
    ]
    assert [one.value for one in said] == pytest.approx([1.0, 3.0, 2.0])


@pytest.mark.parametrize(
    "odd",
    [{"rows": 10 * ROWS}, {"resumed_after": 15}, {"told": False}],
    ids=["the data grew", "it went on from a checkpoint", "nobody tells its epochs, or it was tried again"],
)
def test_what_does_not_measure_the_plan_moves_no_other(
    tmp_path: Path, config: Config, odd: dict[str, Any]
) -> None:
    keep(tmp_path, key(config, LOCAL), prediction())
    for name in ("one", "two", "three"):
        found = recorded(run(tmp_path, config, name, 500.0, **odd))
        assert (found.actual, found.ratio) == (500.0, None)
    assert correction(tmp_path, HERE, key(config, LOCAL)) is None


def test_what_was_probed_on_a_busy_machine_moves_no_other(tmp_path: Path, config: Config) -> None:
    busy = prediction().model_copy(update={"parts": PARTS.model_copy(update={"busy": 2.0})})
    keep(tmp_path, key(config, LOCAL), busy)
    for name in ("one", "two", "three"):
        assert recorded(run(tmp_path, config, name, 55.0)).ratio  # it is said of the run itself
    assert correction(tmp_path, HERE, key(config, LOCAL)) is None


def test_a_processor_that_may_stand_in_for_the_accelerator_moves_no_plan(
    tmp_path: Path, config: Config
) -> None:
    asked = ["environment.steps.train.accelerator={type: nvidia-l4, count: 1}"]
    for optional, ratio in ((False, 1.1), (True, None)):
        place = load_environment("kind", [*asked, f"environment.accelerator_optional={optional}"])
        keep(tmp_path, key(config, place), prediction(where=machine(place)))
        assert recorded(run(tmp_path, config, str(optional), 55.0, environment=place)).ratio == ratio


def test_a_corrected_plan_is_measured_by_what_it_was_before(tmp_path: Path, config: Config) -> None:
    keep(tmp_path, key(config, LOCAL), prediction(train=75.0))  # the probe said 50, earlier runs made it 75
    found = recorded(run(tmp_path, config, "one", 75.0))
    assert (found.planned, found.uncorrected, found.ratio) == (75.0, 50.0, 1.5)


def test_many_runs_give_quantiles(tmp_path: Path, config: Config) -> None:
    keep(tmp_path, key(config, LOCAL), prediction())
    for number in range(11):
        run(tmp_path, config, f"{number:02}", 50.0 + number)
    found: Any = correction(tmp_path, HERE, key(config, LOCAL))
    assert (found.value, found.low, found.high) == pytest.approx((1.1, 1.02, 1.18))


def test_steps_are_remembered_of_the_same_configuration(tmp_path: Path, config: Config) -> None:
    run(tmp_path, config, "one", 55.0)
    assert past_steps(tmp_path, key(config, LOCAL)) == {"evaluate": 3.0}
    assert past_steps(tmp_path, key(load(None, ["training.epochs=3"]), LOCAL)) == {}
    (tmp_path / "runs" / "one" / "run.json").unlink()
    assert past_steps(tmp_path, key(config, LOCAL)) == {}


def test_what_an_older_modelyard_wrote_is_left_out(tmp_path: Path, config: Config) -> None:
    (run(tmp_path, config, "one", 55.0) / "plan.json").write_text('{"run": "one"}')
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "key.json").write_text("{}")
    assert correction(tmp_path, HERE, key(config, LOCAL)) is None
    assert planned(tmp_path, "key") is None
