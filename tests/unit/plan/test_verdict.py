"""What speaks against a run, in which words, and what nobody can tell."""

from pathlib import Path
from typing import Any

import pytest

from modelyard.components.train.settings import EarlyStopping, Training
from modelyard.pipelines.cli import invoke
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.planning import planning
from modelyard.pipelines.planning.plan import Wishes
from modelyard.pipelines.planning.quantity import Quantity, exactly, unknown
from modelyard.pipelines.planning.verdict import Judged, judge
from tests.unit.plan.conftest import GKE

LOCAL = load_environment("local")
ALL = Training(epochs=1000)
EARLY = Training(epochs=1000, early_stopping=EarlyStopping(patience=3))
PRICELESS = unknown("no price is known")


@pytest.fixture
def huge(monkeypatch: pytest.MonkeyPatch, made: Any) -> Any:
    """Make plans of a model that no device holds."""
    whole = planning.measure

    def measure(*arguments: Any) -> Any:
        traced, probed, wall = whole(*arguments)
        return traced.model_copy(update={"weights": 10**12, "gradients": 10**12}), probed, wall

    monkeypatch.setattr(planning, "measure", measure)
    return made


def judged(hours: Quantity, wishes: Wishes, training: Training = ALL, where: Any = LOCAL) -> Judged:
    seconds = hours.scaled(3600)
    return judge(seconds, seconds.plus(exactly(60)), PRICELESS, wishes, where, training)


def test_what_is_unknown_breaks_nothing_and_is_said() -> None:
    limits = Wishes(budget=0.0, deadline=1.0)
    found = judged(unknown("--probe measures it"), limits)
    assert found.against == ()
    assert found.unjudged == (
        "Nobody can tell whether it keeps --deadline 1 h: --probe measures it",
        "Nobody can tell whether it keeps --budget 0 USD: no price is known",
    )
    assert judged(unknown("--probe measures it"), Wishes()) == ((), ())


def test_what_is_certain_breaks_a_limit_without_an_expectation() -> None:
    found = judged(unknown("no probe", at_least=2.0), Wishes(deadline=1.0))
    (reason,) = found.against
    assert reason.startswith("It takes at least 2.02 h, more than --deadline 1 h: ")
    assert found.unjudged == ()


def test_early_stopping_may_end_it_before_a_limit() -> None:
    hours = Quantity(value=30.0, low=0.5, high=33.0)
    whole = judged(hours, Wishes(deadline=2.0))
    assert whole.against[0].startswith("It takes 30 h, more than --deadline 2 h")
    early = judged(hours, Wishes(deadline=2.0), EARLY)
    assert early.against == ()
    assert early.unjudged == ("It keeps --deadline 2 h only if early stopping ends it: all epochs take 30 h",)
    (reason,) = judged(hours, Wishes(deadline=0.25), EARLY).against
    assert reason.startswith("It takes at least 0.517 h, more than --deadline 0.25 h")


def test_an_environment_ends_what_takes_too_long() -> None:
    where = load_environment("gke", GKE)
    (train,) = judged(exactly(13.0), Wishes(), where=where).against
    assert train.startswith(
        "The step train takes 13 h, more than environment.steps.train.timeout, 12 h: raise it"
    )
    train, run = judged(exactly(30.0), Wishes(), where=where).against
    assert run.startswith("It takes 30 h, more than environment.active_deadline, 24 h: raise it")
    assert judged(exactly(11.0), Wishes(), where=where) == ((), ())
    assert judged(unknown("no probe"), Wishes(), where=where) == ((), ())
    assert judged(exactly(30.0), Wishes()) == ((), ())  # this machine ends nothing


def test_a_plan_says_which_limit_of_its_environment_it_breaks(made: Any) -> None:
    plan = made("gke", ["training.epochs=900", "environment.steps.train.timeout=60"])
    assert plan.train.value > 60
    assert any("more than environment.steps.train.timeout, 0.0167 h" in one for one in plan.refusals)


def test_only_what_was_asked_about_is_refused(huge: Any) -> None:
    (reason,) = huge(on=("t4",)).refusals
    assert reason.startswith("nvidia-tesla-t4: ")
    assert "take a larger device, or a smaller model" in reason


def test_without_a_list_nothing_is_said_of_it(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "offers", lambda *_: [])
    plan = made("kind", ["environment.steps.train.memory=1Mi"])
    (reason,) = plan.refusals
    assert (plan.fit, plan.offers) == ("does not fit", ())
    assert "do not fit into the pod's memory" in reason


@pytest.mark.usefixtures("huge")
def test_what_a_plan_speaks_against_is_not_submitted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a person types both: 13, and nothing is asked of a server."""
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    sets = [word for one in (*GKE, "environment.kfp.endpoint=http://127.0.0.1:9") for word in ("--set", one)]
    assert code_of("plan", "-e", "gke", "--budget", "1", *sets) == 13
    said = capsys.readouterr().out
    assert "no: nvidia-l4: " in said
    assert "open: Nobody can tell whether it keeps --budget 1 USD: " in said
    assert code_of("submit", "-e", "gke", *sets) == 13
    assert "error: nvidia-l4: " in capsys.readouterr().err


def code_of(*words: str) -> int:
    try:
        return invoke(words)
    except SystemExit as end:  # Typer ends so when it prints for people
        return int(end.code or 0)
