"""The command `modelyard schedule`."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modelyard.components.errors import ConfigError, PlanError
from modelyard.pipelines.planning import feasibility
from tests.integration.backend.conftest import Command, FakeKfp
from tests.integration.backend.schedule.conftest import write_requests


@pytest.fixture(autouse=True)
def digits(environment_file: str) -> None:
    """Write a configuration into the working directory."""
    Path(environment_file).with_name("digits.yaml").write_text(
        'name: digits\ndata: {kind: digits}\nschedule: {cron: "0 3 * * *"}\n'
    )


def test_each_schedule_command_prints_json(modelyard: Command) -> None:
    def schedule(*arguments: str) -> Any:
        code, output = modelyard("schedule", *arguments, "--output", "json")
        assert code == 0
        return output

    assert schedule("apply", "digits.yaml")["action"] == "create"
    dry_run = schedule("apply", "digits.yaml", "--dry-run")
    assert (dry_run["action"], dry_run["applied"], dry_run["changes"]) == ("nothing", False, [])
    (listed,) = schedule("list")
    assert (listed["name"], listed["cron"], listed["paused"]) == ("digits", "0 3 * * *", False)
    assert schedule("pause", "digits") == {"name": "digits", "state": "paused"}
    assert schedule("resume", "digits")["state"] == "resumed"
    assert schedule("run-now", "digits")["name"] == "digits"
    assert schedule("delete", "digits")["state"] == "deleted"
    assert schedule("list") == []


def test_schedule_commands_print_text(modelyard: Command) -> None:
    def text(*arguments: str) -> str:
        return str(modelyard("schedule", *arguments)[1])

    changes = ("--set", "schedule.paused=true", "--set", "schedule.force_after=30d")
    assert "There are no schedules" in text("list")
    assert "would be created" in text("apply", "digits.yaml", "--dry-run")
    assert "digits at " in text("apply", "digits.yaml")
    assert "0 3 * * *" in text("list")
    applied = text("apply", "digits.yaml", *changes)
    assert "schedule.paused: false -> true" in applied
    assert "schedule.force_after: none -> 30 days" in applied
    assert "paused" in text("list")
    assert "digits" in text("delete", "digits")


def test_environment_local_has_no_schedules(modelyard: Command) -> None:
    for arguments in (("apply", "missing.yaml"), ("list",), ("delete", "digits")):
        code, text = modelyard("schedule", *arguments, "-e", "local")
        assert code == ConfigError.exit_code
        assert "docs/schedule.md" in text


def test_a_pod_that_fits_no_node_is_refused(
    fake_kfp: FakeKfp, modelyard: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"cpu": "100m", "memory": "1Mi", "pods": "10"}
    node = {"metadata": {"name": "small"}, "spec": {}, "status": {"allocatable": small}}
    monkeypatch.setattr(feasibility, "connect", lambda _: SimpleNamespace(nodes=[node]))
    arguments = ("schedule", "apply", "digits.yaml", "--set", "environment.steps.train.memory=64Gi")
    code, text = modelyard(*arguments)
    assert code == PlanError.exit_code
    assert "An empty node has at most 1 MiB of memory" in text
    assert write_requests(fake_kfp) == []
    assert modelyard(*arguments, "--anyway", "--output", "json")[1]["action"] == "create"
