"""`rollout status`, and commands for a missing model."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from modelyard.components.deploy.platforms import local
from modelyard.components.deploy.platforms.base import HEARTBEAT_TIMEOUT, PlatformConfig, Servers, Status
from modelyard.components.deploy.platforms.local import LocalPlatform
from modelyard.components.deploy.settings import Rollout, Target
from modelyard.components.deploy.status import rollout_status
from modelyard.components.errors import ConfigError, NotFoundError
from modelyard.pipelines.cli.app import app
from modelyard.pipelines.serving import platforms


def test_problem_of_a_pod_is_shown_until_the_pod_is_ready(platform, claim, pod, models):
    claim()
    pod.set_running(restarts=2, ready=False)
    (error,) = rollout_status(platform, models).errors
    assert "ended 2 times" in error
    pod.set_running(restarts=2)
    assert rollout_status(platform, models).errors == ()
    pod.set_running(restarts=2, ready=False)
    pod.json["status"] |= {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."}
    assert rollout_status(platform, models).errors == ()


@pytest.mark.parametrize("abandoned", [False, True])
def test_abandoned_candidate_is_shown(controller, models, abandoned, monkeypatch):
    at = datetime.now(UTC) - abandoned * (HEARTBEAT_TIMEOUT + timedelta(seconds=1))
    servers = Servers(version=2, digest="", fingerprint="")
    status = Status(candidate=servers, token="killed", heartbeat=at)  # noqa: S106
    monkeypatch.setattr(controller.platform, "status", lambda **_: status)
    result = rollout_status(controller.platform, models)
    assert result.abandoned is abandoned
    assert len(result.errors) == abandoned
    if abandoned:
        assert f"version 2, is abandoned since {at:%Y-%m-%d %H:%M} UTC" in result.errors[-1]
        assert "`modelyard rollout abort digits -e ENV`" in result.errors[-1]


def test_stable_without_the_champion_is_an_error(controller, models, publish, deploy, promote, monkeypatch):
    deploy(publish())
    promote(publish())
    (error,) = rollout_status(controller.platform, models).errors
    assert "`modelyard deploy digits 2 -e ENV` updates stable" in error
    models._objects._data["digits/versions/000002/model.onnx"] = (b"x", "1")
    (error,) = rollout_status(controller.platform, models).errors
    assert "stable serves version 1. model.onnx of version 2" in error
    monkeypatch.setattr(models, "champion", lambda _: None)
    (error,) = rollout_status(controller.platform, models).errors
    assert error.startswith("Stable serves version 1, and digits has no champion in memory:")
    assert "`modelyard deploy digits 1 -e ENV` makes it the champion" in error


def test_another_program_at_the_url_is_an_error(models, publish, promote, monkeypatch):
    promote(publish())
    urls = []
    monkeypatch.setattr(local, "send", lambda server, *_: urls.append(str(server)) or b"[]")
    config = PlatformConfig("digits", models, Target(), "{}", lambda _: {"host": "::1"}, Rollout(), print)
    status = rollout_status(LocalPlatform.open(config), models)
    assert urls == ["http://[::1]:8501"]
    assert (status.champion, status.stable) == (1, None)
    assert "--url" in status.errors[0]


@pytest.fixture
def run(controller, monkeypatch):
    """Return a function that runs a command on the model."""
    monkeypatch.setattr(platforms, "find_controller", lambda *_, **__: controller)
    return lambda *command: CliRunner().invoke(app, [*command, "digits", "-e", "kind"])


@pytest.mark.parametrize("command", [("rollout", "status"), ("rollout", "abort"), ("rollback",)])
def test_commands_name_a_model_that_does_not_exist(run, command):
    error = run(*command).exception
    assert isinstance(error, NotFoundError)
    assert str(error).startswith("There is no model digits in memory:")


def test_model_without_a_champion_has_no_traffic_and_no_rollback(run, publish):
    publish()
    assert re.search(r"traffic to\s+none", run("rollout", "status").output)
    assert "digits has no candidate." in run("rollout", "abort").output
    assert str(run("rollback").exception).startswith("digits has no champion in memory:")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rolout.bake_seconds=5", "rolout is not a section that .* reads; did you mean rollout"),
        ("training.epochs=5", "training is not a section that .* reads; choose from rollout, serving, env"),
        ("rollout=5", "not SECTION.KEY=VALUE"),
    ],
)
def test_override_of_another_section_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        platforms.find_controller("digits", "kind", "me", overrides=[override])
