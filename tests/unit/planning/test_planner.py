"""What a plan says, on the screen and as JSON."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from modelyard.components.errors import TooLargeError
from modelyard.components.train.measurement import Cost, CurvePoint, LearningCurve, ProbeResult
from modelyard.components.train.settings import EarlyStopping, Training
from modelyard.pipelines.cli import invoke
from modelyard.pipelines.config.config import load
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.planning import hardware, planner
from modelyard.pipelines.planning.dataset import Dataset
from modelyard.pipelines.planning.plan import Plan, estimate_train_time, exceeded, load_plan, plan_key
from modelyard.pipelines.planning.planner import Request
from modelyard.pipelines.planning.render import dollars, seconds, show
from tests.unit.planning.conftest import GKE, Make


def screen(plan: Plan, everything: bool = False, config: str = "digits.yaml") -> str:
    console = Console(width=80, force_terminal=False)
    with console.capture() as capture:
        show(plan, console, everything, f"modelyard plan {config} --probe")
    return capture.get().replace("\N{NO-BREAK SPACE}", " ")


def test_without_a_probe_a_plan_shows_what_is_known(make: Make) -> None:
    plan = make()
    long = "long/" * 20 + "digits.yaml"
    text = screen(plan, config=long)
    assert (plan.parameters, plan.steps, plan.fit, plan.train) == (1_000_000, 300, "fits", None)
    assert plan.memory.fixed == 16 * plan.parameters
    assert "1,000,000 parameters" in text
    assert "1.8 TFLOP in 300 steps" in text
    assert "60 (cat) to 900 (dog)" in text
    assert "unknown" not in text
    assert f"plan\n           {long}" in text
    assert (plan.problems, plan.exceeded) == ((), ())


@pytest.mark.parametrize(
    ("name", "settings", "request_"),
    [
        ("local", (), {"probe": True, "learning_curve": True, "price": 2.5}),
        ("gke", ("training.batch_size=1",), {"probe": True, "budget": 0.0001}),
        (
            "gke",
            (
                "environment.steps.train.accelerator={type: tpu-v6e-slice, count: 4, topology: 2x2}",
                "environment.keras_backend=jax",
            ),
            {},
        ),
    ],
)
def test_the_screen_has_eighty_columns_and_breaks_no_word(
    make: Make, name: str, settings: tuple[str, ...], request_: dict[str, Any]
) -> None:
    plan = make(name, settings, **request_)
    text = screen(plan, everything=True)
    assert max(map(len, text.rstrip().splitlines())) <= 80
    words = text.split()
    for fact in (*plan.warnings, *plan.problems, *plan.exceeded):
        assert set(fact.replace("\N{NO-BREAK SPACE}", " ").split()) <= set(words)
    for option in plan.options:
        assert option.accelerator in words


def test_the_time_is_that_of_the_probe(make: Make, probed: ProbeResult) -> None:
    plan = make(probe=True)
    assert plan.train
    # 46 s in all, of which 40 s inside, 1 s of setup; 2 s to compile and 2 s to export; 10 epochs of 30 steps
    assert plan.train.start == pytest.approx(7.0)
    assert plan.train.epoch == pytest.approx(0.5 + 30 * 0.020 + 0.1 + 6 * 0.010)
    assert plan.train.total.value == pytest.approx(7.0 + 4.0 + 10 * plan.train.epoch)
    assert plan.train.total.low == pytest.approx(0.85 * plan.train.total.value)
    assert plan.train.total.high == pytest.approx(1.15 * plan.train.total.value)
    assert plan.storage.model == probed.model_bytes
    assert "10 epochs of" in screen(plan)


def test_a_busy_machine_widens_the_interval(make: Make, answers: dict[str, Any], probed: ProbeResult) -> None:
    idle = make(probe=True)
    answers["probe"] = probed.model_copy(update={"load": 3.0})
    busy = make(probe=True)
    assert idle.train
    assert busy.train
    assert busy.train.total.low == pytest.approx(idle.train.total.low / 3)
    assert busy.warnings
    assert not idle.warnings


def test_with_early_stopping_the_interval_begins_at_the_fewest_epochs(probed: ProbeResult) -> None:
    rows, epochs = {"train": 960, "validation": 192}, 10
    whole = estimate_train_time(probed, 46.0, Training(epochs=epochs), rows)
    early = estimate_train_time(
        probed, 46.0, Training(epochs=epochs, early_stopping=EarlyStopping(patience=1)), rows
    )
    assert early.total.value == whole.total.value
    assert early.total.low < whole.total.low
    assert early.total.high == whole.total.high


def test_the_last_probe_of_the_same_examples_is_remembered(
    make: Make, answers: dict[str, Any], data: Dataset
) -> None:
    probed = make(probe=True)
    again = make()
    assert (again.train, again.probed_at) == (probed.train, probed.probed_at)
    answers["data"] = data.model_copy(update={"rows": {"train": 96, "validation": 192, "test": 300}})
    assert make().train is None


def test_a_probe_without_enough_memory_is_an_answer(
    make: Make, answers: dict[str, Any], tmp_path: Path
) -> None:
    answers["probe"] = TooLargeError("A batch of 32 does not fit. Lower training.batch_size.")
    plan = make("gke", probe=True)
    assert (plan.fit, plan.train) == ("does not fit", None)
    assert plan.problems == ("A batch of 32 does not fit. Lower training.batch_size",)
    assert "does not fit into nvidia-l4" in screen(plan)
    settings = [*GKE, "training.epochs=10"]
    environment = load_environment("gke", settings)
    kept = load_plan(tmp_path, plan_key(load(None, settings), environment))
    assert kept
    assert kept.problems == plan.problems
    answers["probe"] = AssertionError("it was probed again")
    assert make("gke").problems == plan.problems


def test_a_model_that_is_too_large_is_not_probed(make: Make, answers: dict[str, Any], cost: Cost) -> None:
    answers["cost"] = cost.model_copy(update={"weights": 10**13, "gradients": 10**13})
    answers["probe"] = AssertionError("it was probed")
    plan = make(probe=True)
    assert plan.fit == "does not fit"
    (memory, disk) = plan.problems
    assert "this machine" in memory
    assert "MODELYARD_HOME" in disk
    assert {one.fit for one in plan.options} == {"does not fit"}


def test_what_may_not_fit_is_told_with_the_batch_that_would(
    make: Make, answers: dict[str, Any], cost: Cost
) -> None:
    answers["cost"] = cost.model_copy(update={"activations": 30 * 10**9})
    plan = make("gke")
    assert plan.fit == "uncertain"
    (warning,) = plan.warnings
    assert "--probe" in warning
    assert "a batch of 20 would fit" in warning
    assert make("gke", probe=True).fit == "fits"  # the probe has seen that it does


def test_a_pod_without_a_limit_of_memory_is_not_judged(make: Make) -> None:
    plan = make("kind", ("environment.steps.train={memory: null}", "environment.defaults={memory: null}"))
    assert (plan.device, plan.capacity, plan.fit) == ("the pod", None, None)
    assert "fit into" not in screen(plan)


def test_money_is_hours_times_the_price_of_the_accelerator(make: Make) -> None:
    plan = make("gke", ("environment.steps.train.spot=false",), probe=True)
    assert plan.money is None  # the probe ran on a CPU: accelerator_optional, and no GPU on the node
    assert any("cpu:0" in one for one in plan.warnings)


def test_money_on_a_gpu(make: Make, answers: dict[str, Any], probed: ProbeResult) -> None:
    answers["probe"] = probed.model_copy(update={"device": "gpu:0", "device_memory": 10**9})
    plan = make("gke", ("environment.steps.train.spot=false",), probe=True)
    assert plan.train
    assert plan.money
    assert plan.money.train
    assert plan.money.train.value == pytest.approx(plan.money.hour * plan.train.total.value / 3600)
    assert plan.prices_read in plan.money.note
    spot = make("gke", probe=True)
    assert spot.money
    assert spot.money.hour < plan.money.hour
    assert "1 GB on the device" in screen(plan)


def test_a_given_price_is_used(make: Make) -> None:
    plan = make(probe=True, price=3.0)
    assert plan.train
    assert plan.money
    assert plan.money.train
    assert plan.money.train.value == pytest.approx(3.0 * plan.train.total.value / 3600)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"budget": 1.0}, "--probe"),
        ({"budget": 1.0, "probe": True}, "--price"),
        ({"budget": 0.001, "probe": True, "price": 3.0}, "more than --budget 0.001"),
        ({"budget": 1.0, "probe": True, "price": 3.0}, None),
    ],
)
def test_a_budget_is_kept_or_refused(make: Make, request_: dict[str, Any], said: str | None) -> None:
    plan = make(**request_)
    assert bool(plan.exceeded) is (said is not None)
    assert (said or "") in "".join(plan.exceeded)


def test_the_times_of_the_environment_are_limits(make: Make) -> None:
    settings = ("environment.steps.train.timeout=20", "environment.active_deadline=21")
    plan = make("gke", settings, probe=True)
    timeout, whole = plan.exceeded
    assert "environment.steps.train.timeout" in timeout
    assert "environment.active_deadline" in whole
    early = Training(epochs=10, early_stopping=EarlyStopping(patience=0))
    environment = load_environment("gke", [*GKE, *settings])
    assert plan.train
    few = plan.train.model_copy(update={"total": plan.train.total.model_copy(update={"low": 20.5})})
    (said,) = exceeded(plan.model_copy(update={"train": few}), environment, early)
    assert "at least" in said  # 20.5 s are certain


def test_a_checkpoint_has_to_fit_on_the_pods_disk(make: Make, answers: dict[str, Any], cost: Cost) -> None:
    answers["cost"] = cost.model_copy(update={"optimizer": 19 * 10**9})
    settings = ("environment.steps.train.ephemeral_storage=10Gi", "environment.steps.train.accelerator=null")
    (memory, disk) = make("gke", settings).problems
    assert "the pod has" in memory
    assert "ephemeral_storage" in disk
    assert len(make("gke", (*settings, "training.checkpoint_every=0")).problems) == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("environment.steps.train.accelerator={type: nvidia-l4, count: 2}",), "one of 2 nvidia-l4"),
        (("environment.steps.train.retries=0",), "environment.steps.train.retries"),
    ],
)
def test_known_pitfalls_are_warnings(make: Make, settings: tuple[str, ...], said: str) -> None:
    (warning,) = make("gke", settings).warnings
    assert said in warning


def test_own_code_that_jax_trains_may_use_keras_alone(make: Make, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("")
    settings = (f"model={{build: 'own:build', code: {tmp_path}}}", "environment.keras_backend=jax")
    (warning,) = make("kind", settings).warnings
    assert "own:build must use keras.ops only" in warning


def test_a_learning_curve_is_shown(make: Make, answers: dict[str, Any]) -> None:
    assert "too few" in screen(make(learning_curve=True))
    points = tuple(CurvePoint(rows=rows, error=0.1, low=0.05, high=0.2) for rows in (120, 240))
    answers["learning_curve"] = LearningCurve(measure="RMSE", points=points, beyond=points[1:], refused=None)
    assert "expected 240: 0.1000 (0.0500 to 0.2000)" in " ".join(screen(make(learning_curve=True)).split())


@pytest.mark.usefixtures("answers")
def test_a_plan_that_cannot_be_kept_is_shown(tmp_path: Path) -> None:
    (tmp_path / "plans").write_text("a file")
    said: list[str] = []
    settings = ["training.epochs=10"]
    environment = load_environment("local", settings)
    plan = planner.make_plan(
        load(None, settings), environment, "local", Request(), tmp_path, warn=said.append
    )
    assert plan.parameters == 1_000_000
    assert "cannot be kept" in said[0]


def test_uncounted_operations_are_named(make: Make, answers: dict[str, Any], cost: Cost) -> None:
    answers["cost"] = cost.model_copy(update={"uncounted": ("Einsum", "While")})
    assert "not counted: Einsum, While" in screen(make())


@pytest.mark.parametrize(
    ("setting", "request_", "name", "fetched"),
    [
        ("cifar10", {"probe": True}, "local", True),
        ("cifar10", {"probe": True}, "gke", False),  # its pod has random examples, and the shape is known
        ("cifar10", {"fetch": True}, "gke", True),
        ("cifar10", {"learning_curve": True}, "gke", True),
        ("npz", {"probe": True}, "gke", True),
        ("npz", {}, "gke", False),
    ],
)
def test_no_more_is_downloaded_than_is_needed(
    make: Make,
    answers: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    request_: dict[str, Any],
    name: str,
    fetched: bool,
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(
        planner, "describe_dataset", lambda *arguments: asked.append(arguments[3]) or answers["data"]
    )
    source = {"cifar10": "https://example.com/cifar.tar.gz", "npz": "gs://a/b.npz"}[setting]
    make(name, (f"data={{kind: {setting}, source: '{source}'}}",), **request_)
    assert asked == [fetched]


def test_the_disk_of_this_machine_is_a_limit(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    (problem,) = make().problems
    assert "MODELYARD_HOME" in problem


@pytest.mark.parametrize(
    ("amount", "said"), [(0.0123, "12.3 ms"), (4.5, "4.5 s"), (200, "3.33 min"), (18000, "5 h")]
)
def test_times_are_words(amount: float, said: str) -> None:
    assert seconds(amount).replace("\N{NO-BREAK SPACE}", " ") == said


def test_less_than_a_cent() -> None:
    assert dollars(0.001).startswith("<")


@pytest.mark.parametrize(("budget", "code"), [((), 0), (("--budget", "1"), 13)])
@pytest.mark.usefixtures("answers")
def test_the_command(
    budget: tuple[str, ...],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path))
    for output in ((), ("--output", "json")):
        assert _code("plan", *budget, *output) == code
        assert "parameters" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--fetch", "--learning-curve"])
def test_rows_are_given_or_fetched(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _code("plan", "--rows", "50", option) == 2
    assert option in capsys.readouterr().err


def _code(*words: str) -> int:
    try:
        return invoke(words)
    except SystemExit as end:  # Typer ends so when it prints for people
        return int(end.code or 0)
