"""Plans as text and as JSON."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from modelyard.components.errors import TooLargeError
from modelyard.components.train.measurement import Cost, CurvePoint, LearningCurve, ProbeResult
from modelyard.components.train.settings import EarlyStopping, Training
from modelyard.pipelines.config.config import load
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.planning import hardware, planner
from modelyard.pipelines.planning.dataset import Dataset
from modelyard.pipelines.planning.plan import (
    Plan,
    compute_plan_key,
    estimate_train_time,
    find_exceeded_limits,
    load_plan,
)
from modelyard.pipelines.planning.planner import PlanRequest
from modelyard.pipelines.planning.render import format_dollars, format_seconds, print_plan
from tests.command_line import CommandLine
from tests.unit.planning.conftest import GKE, MakePlan, Results


def render(plan: Plan, full: bool = False, config: str = "digits.yaml") -> str:
    console = Console(width=80, force_terminal=False)
    with console.capture() as capture:
        print_plan(plan, console, full, f"modelyard plan {config} --probe")
    return capture.get().replace("\N{NO-BREAK SPACE}", " ")


def test_a_plan_without_a_probe_has_size_and_memory(make_plan: MakePlan) -> None:
    plan = make_plan()
    long = "long/" * 20 + "digits.yaml"
    text = render(plan, config=long)
    assert (plan.parameters, plan.steps, plan.fit, plan.train) == (1_000_000, 300, "fits", None)
    assert plan.memory.fixed == 16 * plan.parameters
    assert "1,000,000 parameters" in text
    assert "1.8 TFLOP in 300 steps" in text
    assert "60 (class cat) to 900 (class dog)" in text
    assert "unknown" not in text
    assert f"plan\n           {long}" in text
    assert (plan.errors, plan.exceeded_limits) == ((), ())


@pytest.mark.parametrize(
    ("name", "settings", "fields"),
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
def test_a_plan_fits_into_80_columns_without_broken_words(
    make_plan: MakePlan, name: str, settings: tuple[str, ...], fields: dict[str, Any]
) -> None:
    plan = make_plan(name, settings, **fields)
    text = render(plan, full=True)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line != line.rstrip()] == []
    words = text.split()
    for message in (*plan.warnings, *plan.errors, *plan.exceeded_limits):
        assert set(message.replace("\N{NO-BREAK SPACE}", " ").split()) <= set(words)
    for option in plan.options:
        assert option.accelerator in words


def test_training_time_is_computed_from_the_probe(make_plan: MakePlan, probe_result: ProbeResult) -> None:
    plan = make_plan(probe=True)
    assert plan.train
    # the process takes 46 s, its probe 40 s; setup 1 s, compile 2 s, export 2 s; 10 epochs of 30 steps
    assert plan.train.start == pytest.approx(7.0)
    assert plan.train.epoch == pytest.approx(0.5 + 30 * 0.020 + 0.1 + 6 * 0.010)
    assert plan.train.total.value == pytest.approx(7.0 + 4.0 + 10 * plan.train.epoch)
    assert plan.train.total.low == pytest.approx(0.85 * plan.train.total.value)
    assert plan.train.total.high == pytest.approx(1.15 * plan.train.total.value)
    assert plan.storage.model == probe_result.model_bytes
    assert "10 epochs of" in render(plan)


def test_a_busy_machine_widens_the_interval(
    make_plan: MakePlan, measurements: Results, probe_result: ProbeResult
) -> None:
    idle = make_plan(probe=True)
    measurements["probe"] = probe_result.model_copy(update={"load": 3.0})
    busy = make_plan(probe=True)
    assert idle.train
    assert busy.train
    assert busy.train.total.low == pytest.approx(idle.train.total.low / 3)
    assert busy.warnings
    assert not idle.warnings


def test_early_stopping_lowers_the_minimum_time(probe_result: ProbeResult) -> None:
    examples, epochs = {"train": 960, "validation": 192}, 10
    full = estimate_train_time(probe_result, 46.0, Training(epochs=epochs), examples)
    early = estimate_train_time(
        probe_result, 46.0, Training(epochs=epochs, early_stopping=EarlyStopping(patience=1)), examples
    )
    assert early.total.value == full.total.value
    assert early.total.low < full.total.low
    assert early.total.high == full.total.high


def test_the_last_probe_of_the_same_examples_is_used_again(
    make_plan: MakePlan, measurements: Results, data: Dataset
) -> None:
    first = make_plan(probe=True)
    second = make_plan()
    assert (second.train, second.probed_at) == (first.train, first.probed_at)
    measurements["data"] = data.model_copy(update={"examples": {"train": 96, "validation": 192, "test": 300}})
    assert make_plan().train is None


def test_a_probe_that_runs_out_of_memory_is_an_error_of_the_plan(
    make_plan: MakePlan, measurements: Results, tmp_path: Path
) -> None:
    measurements["probe"] = TooLargeError("A batch of 32 does not fit. Lower training.batch_size.")
    plan = make_plan("gke", probe=True)
    assert (plan.fit, plan.train) == ("does not fit", None)
    assert plan.errors == ("A batch of 32 does not fit. Lower training.batch_size",)
    assert "does not fit into nvidia-l4" in render(plan)
    settings = [*GKE, "training.epochs=10"]
    environment = load_environment("gke", settings)
    saved = load_plan(tmp_path, compute_plan_key(load(None, settings), environment))
    assert saved
    assert saved.errors == plan.errors
    measurements["probe"] = AssertionError("the model is probed again")
    assert make_plan("gke").errors == plan.errors


def test_a_model_that_is_too_large_is_not_probed(
    make_plan: MakePlan, measurements: Results, cost: Cost
) -> None:
    measurements["cost"] = cost.model_copy(update={"weights": 10**13, "gradients": 10**13})
    measurements["probe"] = AssertionError("the model is probed")
    plan = make_plan(probe=True)
    assert plan.fit == "does not fit"
    (memory, disk) = plan.errors
    assert "this machine" in memory
    assert "MODELYARD_HOME" in disk
    assert {option.fit for option in plan.options} == {"does not fit"}


def test_a_model_that_may_not_fit_has_a_warning_with_a_smaller_batch(
    make_plan: MakePlan, measurements: Results, cost: Cost
) -> None:
    measurements["cost"] = cost.model_copy(update={"activations": 30 * 10**9})
    plan = make_plan("gke")
    assert plan.fit == "uncertain"
    (warning,) = plan.warnings
    assert "--probe" in warning
    assert "a batch of 20 would fit" in warning
    assert make_plan("gke", probe=True).fit == "fits"  # the probe ran without an error


def test_a_pod_without_a_memory_limit_has_no_fit(make_plan: MakePlan) -> None:
    plan = make_plan(
        "kind", ("environment.steps.train={memory: null}", "environment.defaults={memory: null}")
    )
    assert (plan.device, plan.capacity, plan.fit) == ("the pod", None, None)
    assert "fit into" not in render(plan)


def test_a_probe_on_a_cpu_gives_no_price_of_a_gpu(make_plan: MakePlan) -> None:
    plan = make_plan("gke", ("environment.steps.train.spot=false",), probe=True)
    assert plan.cost is None  # the probe ran on a CPU: accelerator_optional, and no GPU on the node
    assert any("cpu:0" in warning for warning in plan.warnings)


def test_a_probe_on_a_gpu_gives_the_price_of_training(
    make_plan: MakePlan, measurements: Results, probe_result: ProbeResult
) -> None:
    measurements["probe"] = probe_result.model_copy(update={"device": "gpu:0", "device_memory": 10**9})
    plan = make_plan("gke", ("environment.steps.train.spot=false",), probe=True)
    assert plan.train
    assert plan.cost
    assert plan.cost.train
    assert plan.cost.train.value == pytest.approx(plan.cost.per_hour * plan.train.total.value / 3600)
    assert plan.price_date in plan.cost.note
    spot = make_plan("gke", probe=True)
    assert spot.cost
    assert spot.cost.per_hour < plan.cost.per_hour
    assert "1 GB on the device" in render(plan)


def test_the_option_price_is_used(make_plan: MakePlan) -> None:
    plan = make_plan(probe=True, price=3.0)
    assert plan.train
    assert plan.cost
    assert plan.cost.train
    assert plan.cost.train.value == pytest.approx(3.0 * plan.train.total.value / 3600)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"budget": 1.0}, "--probe"),
        ({"budget": 1.0, "probe": True}, "--price"),
        ({"budget": 0.001, "probe": True, "price": 3.0}, "more than --budget 0.001"),
        ({"budget": 1.0, "probe": True, "price": 3.0}, None),
    ],
)
def test_a_budget_is_compared_with_the_price_of_training(
    make_plan: MakePlan, fields: dict[str, Any], message: str | None
) -> None:
    plan = make_plan(**fields)
    assert bool(plan.exceeded_limits) is (message is not None)
    assert (message or "") in "".join(plan.exceeded_limits)


def test_timeouts_of_the_environment_are_limits(make_plan: MakePlan) -> None:
    settings = ("environment.steps.train.timeout=20", "environment.active_deadline=21")
    plan = make_plan("gke", settings, probe=True)
    timeout, active_deadline = plan.exceeded_limits
    assert "environment.steps.train.timeout" in timeout
    assert "environment.active_deadline" in active_deadline
    early = Training(epochs=10, early_stopping=EarlyStopping(patience=0))
    environment = load_environment("gke", [*GKE, *settings])
    assert plan.train
    shorter = plan.train.model_copy(update={"total": plan.train.total.model_copy(update={"low": 20.5})})
    (message,) = find_exceeded_limits(plan.model_copy(update={"train": shorter}), environment, early)
    assert "at least" in message  # the minimum is 20.5 s


def test_a_checkpoint_must_fit_on_the_disk_of_the_pod(
    make_plan: MakePlan, measurements: Results, cost: Cost
) -> None:
    measurements["cost"] = cost.model_copy(update={"optimizer": 19 * 10**9})
    settings = ("environment.steps.train.ephemeral_storage=10Gi", "environment.steps.train.accelerator=null")
    (memory, disk) = make_plan("gke", settings).errors
    assert "the pod has" in memory
    assert "ephemeral_storage" in disk
    assert len(make_plan("gke", (*settings, "training.checkpoint_every=0")).errors) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("environment.steps.train.accelerator={type: nvidia-l4, count: 2}",), "one of 2 nvidia-l4"),
        (("environment.steps.train.retries=0",), "environment.steps.train.retries"),
    ],
)
def test_unused_accelerators_and_missing_retries_are_warnings(
    make_plan: MakePlan, settings: tuple[str, ...], message: str
) -> None:
    (warning,) = make_plan("gke", settings).warnings
    assert message in warning


def test_user_code_for_jax_has_a_warning(make_plan: MakePlan, tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("")
    settings = (f"model={{build: 'code:build', code: {tmp_path}}}", "environment.keras_backend=jax")
    (warning,) = make_plan("kind", settings).warnings
    assert "code:build" in warning


def test_a_learning_curve_is_shown(make_plan: MakePlan, measurements: Results) -> None:
    assert "too few" in render(make_plan(learning_curve=True))
    points = tuple(CurvePoint(examples=examples, error=0.1, low=0.05, high=0.2) for examples in (120, 240))
    measurements["learning_curve"] = LearningCurve(
        measure="RMSE", points=points, extrapolated=points[1:], reason=None
    )
    assert "expected 240: 0.1000 (0.0500 to 0.2000)" in " ".join(
        render(make_plan(learning_curve=True)).split()
    )


@pytest.mark.usefixtures("measurements")
def test_a_plan_that_cannot_be_saved_is_shown(tmp_path: Path) -> None:
    (tmp_path / "plans").write_text("a file")
    warnings: list[str] = []
    settings = ["training.epochs=10"]
    environment = load_environment("local", settings)
    plan = planner.make_plan(
        load(None, settings), environment, "local", PlanRequest(), tmp_path, warn=warnings.append
    )
    assert plan.parameters == 1_000_000
    assert "plans" in warnings[0]


def test_uncounted_operations_are_named(make_plan: MakePlan, measurements: Results, cost: Cost) -> None:
    measurements["cost"] = cost.model_copy(update={"uncounted": ("Einsum", "While")})
    assert "Einsum, While" in render(make_plan())


@pytest.mark.parametrize(
    ("setting", "fields", "name", "fetched"),
    [
        ("cifar10", {"probe": True}, "local", True),
        ("cifar10", {"probe": True}, "gke", False),  # the probe pod uses random examples of the known shape
        ("cifar10", {"fetch": True}, "gke", True),
        ("cifar10", {"learning_curve": True}, "gke", True),
        ("npz", {"probe": True}, "gke", True),
        ("npz", {}, "gke", False),
    ],
)
def test_data_are_downloaded_only_if_needed(
    make_plan: MakePlan,
    measurements: Results,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    fields: dict[str, Any],
    name: str,
    fetched: bool,
) -> None:
    fetches: list[bool] = []
    monkeypatch.setattr(
        planner, "describe_dataset", lambda *arguments: fetches.append(arguments[3]) or measurements["data"]
    )
    source = {"cifar10": "https://example.com/cifar.tar.gz", "npz": "gs://a/b.npz"}[setting]
    make_plan(name, (f"data={{kind: {setting}, source: '{source}'}}",), **fields)
    assert fetches == [fetched]


def test_the_model_must_fit_on_the_local_disk(make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    (error,) = make_plan().errors
    assert "MODELYARD_HOME" in error


@pytest.mark.parametrize(
    ("amount", "message"), [(0.0123, "12.3 ms"), (4.5, "4.5 s"), (200, "3.33 min"), (18000, "5 h")]
)
def test_durations_are_formatted(amount: float, message: str) -> None:
    assert format_seconds(amount).replace("\N{NO-BREAK SPACE}", " ") == message


def test_prices_below_a_cent_are_formatted() -> None:
    assert format_dollars(0.001).startswith("<")


@pytest.mark.parametrize(("budget", "code"), [((), 0), (("--budget", "1"), 13)])
@pytest.mark.usefixtures("measurements")
def test_the_exit_code_of_plan_depends_on_the_budget(
    budget: tuple[str, ...],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    modelyard: CommandLine,
) -> None:
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path))
    for output in ((), ("--output", "json")):
        result = modelyard("plan", *budget, *output)
        assert result.code == code
        assert "parameters" in result.out


@pytest.mark.parametrize("option", ["--fetch", "--learning-curve"])
def test_examples_with_fetch_or_learning_curve_are_refused(option: str, modelyard: CommandLine) -> None:
    result = modelyard("plan", "--examples", "50", option)
    assert result.code == 2
    assert option in result.err
