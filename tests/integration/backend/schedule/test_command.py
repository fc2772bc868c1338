"""`modelyard schedule` on Kubeflow Pipelines."""

import json
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from modelyard.components.errors import ConfigError, PlanError
from modelyard.pipelines.cli import invoke
from modelyard.pipelines.config import text as config_text
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.planning import guard
from tests.integration.backend.conftest import Site
from tests.integration.backend.schedule.conftest import changing


def test_the_command_line(command: Callable[..., Any]) -> None:
    made = command("schedule", "apply", "digits.yaml", "-e", "there.yaml")
    assert made["action"] == "create"
    again = command("schedule", "apply", "digits.yaml", "-e", "there.yaml", "--dry-run")
    assert (again["action"], again["applied"], again["changes"]) == ("nothing", False, [])
    (listed,) = command("schedule", "list", "-e", "there.yaml")
    assert (listed["name"], listed["cron"], listed["paused"]) == ("digits", "0 3 * * *", False)
    assert command("schedule", "pause", "digits", "-e", "there.yaml") == {"name": "digits", "state": "paused"}
    assert command("schedule", "resume", "digits", "-e", "there.yaml")["state"] == "resumed"
    assert command("schedule", "run-now", "digits", "-e", "there.yaml")["name"] == "digits"
    assert command("schedule", "delete", "digits", "-e", "there.yaml")["state"] == "deleted"
    assert command("schedule", "list", "-e", "there.yaml") == []


@pytest.mark.usefixtures("command")
def test_texts(capsys: pytest.CaptureFixture[str]) -> None:
    def text(*words: str) -> str:
        with suppress(SystemExit):  # Typer ends so when it prints for people
            invoke(["schedule", *words, "-e", "there.yaml"])
        return capsys.readouterr().out

    paused = ("--set", "schedule.paused=true")
    assert "There are no schedules" in text("list")
    assert "would be created" in text("apply", "digits.yaml", "--dry-run")
    assert "digits at " in text("apply", "digits.yaml")
    assert "0 3 * * *" in text("list")
    applied = text("apply", "digits.yaml", *paused, "--set", "schedule.force_after=30d")
    assert "schedule.paused" in applied
    assert "none -> 30 days" in applied
    assert "paused" in text("list")
    assert "digits" in text("run-now", "digits")
    assert "digits" in text("delete", "digits")


@pytest.mark.usefixtures("command")
def test_this_machine_has_no_recurring_runs(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (("apply", "digits.yaml"), ("list",), ("delete", "digits")):
        assert invoke(["schedule", *words, "-e", "local", "--output", "json"]) == ConfigError.exit_code
        assert "docs/schedule.md" in capsys.readouterr().out


def test_what_no_node_can_take_is_refused_unless_it_is_wanted(
    site: Site,
    command: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small = {"cpu": "100m", "memory": "1Mi", "pods": "10"}
    node = {"metadata": {"name": "small"}, "spec": {}, "status": {"allocatable": small}}
    monkeypatch.setattr(guard, "connect", lambda _: SimpleNamespace(nodes=[node]))
    large = "environment.steps.train.memory=64Gi"
    arguments = ("schedule", "apply", "digits.yaml", "-e", "there.yaml", "--set", large)
    assert invoke(list(arguments)) == PlanError.exit_code
    assert "At most 1 MiB of memory fit on an empty node" in capsys.readouterr().err
    assert changing(site) == []
    assert command(*arguments, "--anyway")["action"] == "create"


@pytest.fixture
def command(
    environment: Environment,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., Any]:
    """Give what runs a command in a folder with a configuration and an environment."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.yaml").write_text(
        config_text.dump(environment.model_dump(mode="json", exclude_unset=True))
    )
    (tmp_path / "digits.yaml").write_text(
        'name: digits\ndata: {kind: digits}\nschedule: {cron: "0 3 * * *"}\n'
    )

    def run(*words: str) -> Any:
        assert invoke([*words, "--output", "json"]) == 0, capsys.readouterr()
        return json.loads(capsys.readouterr().out)

    return run
