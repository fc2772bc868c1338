"""What `rollout status` says, and what the commands say of a model that is not there."""

import re
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from modelyard.components.deploy import objects
from modelyard.components.deploy.heartbeat import beat
from modelyard.components.deploy.serving_platform import ModelDeployment
from modelyard.components.deploy.status import status
from modelyard.components.errors import ConfigError, NotFoundError
from modelyard.components.store.models import open_store
from modelyard.components.store.settings import Store
from modelyard.pipelines.cli.app import app
from modelyard.pipelines.serving import platforms


def test_the_name_of_a_service_begins_with_a_letter(cluster, platform):
    with pytest.raises(ConfigError, match="'7segments' cannot be served on Kubernetes"):
        ModelDeployment("7segments", cluster, platform.models)
    ModelDeployment("segments-7", cluster, platform.models)


@pytest.fixture
def candidate(platform, cluster):
    """Give a champion, and a candidate whose rollout runs; return the metadata of its Deployment."""
    platform.models = SimpleNamespace(champion=lambda _: SimpleNamespace(version=1), history=lambda _: [])
    platform.apply_candidate(2, "d" * 64, "token", None)
    beat(platform, "token")
    return cluster.objects["Deployment digits-candidate"]["metadata"]


@pytest.mark.usefixtures("candidate")
def test_the_problem_of_a_pod_is_shown_until_it_is_ready_again(platform, pod):
    pod.runs(restarts=2, ready=False)
    problems = status(platform).problems
    assert "ended 2 times" in problems[0]
    assert "`modelyard deploy digits 1 -e ENV` brings it there" in problems[1]
    pod.runs(restarts=2)
    assert [problem[:12] for problem in status(platform).problems] == ["The champion"]
    pod.runs(restarts=2, ready=False)
    pod.json["status"] |= {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."}
    assert [problem[:12] for problem in status(platform).problems] == ["The champion"]


@pytest.mark.parametrize(
    "at", ["2026-01-02T03:04:05+00:00", "2026-01-02T03:04:05", "2026-01-02T05:04:05+02:00"]
)
def test_an_abandoned_candidate_is_shown_as_such(platform, candidate, at):
    assert not status(platform).abandoned
    candidate["annotations"][objects.HEARTBEAT] = at
    found = status(platform)
    assert found.abandoned
    assert "version 2, is abandoned, since 2026-01-02 03:04 UTC" in found.problems[-1]
    assert "`modelyard rollout abort digits -e ENV`" in found.problems[-1]


def test_a_candidate_that_was_created_just_now_is_not_abandoned(platform, candidate):
    del candidate["annotations"][objects.HEARTBEAT]
    candidate["creationTimestamp"] = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    assert not status(platform).abandoned


def test_a_stable_without_a_champion_is_a_problem(platform, version, deploy, monkeypatch):
    deploy(version())
    monkeypatch.setattr(platform.models, "champion", lambda _: None)
    (problem,) = status(platform).problems
    assert problem.startswith("Stable serves version 1, and digits has no champion in /")
    assert "`modelyard deploy digits 1 -e ENV` makes it that" in problem


@pytest.fixture
def run(platform, monkeypatch):
    """Return what runs a command on this model."""
    monkeypatch.setattr(platforms, "find_deployment", lambda *_: platform)
    return lambda *line: CliRunner().invoke(app, [*line, "digits", "-e", "kind"])


@pytest.mark.parametrize("line", [("rollout", "status"), ("rollout", "abort"), ("rollback",)])
def test_all_commands_name_a_model_that_does_not_exist(platform, run, tmp_path, line):
    platform.models = open_store(Store(url=f"file://{tmp_path}"))
    error = run(*line).exception
    assert isinstance(error, NotFoundError)
    assert str(error).startswith("There is no model digits in /")


def test_a_model_that_was_not_promoted_yet(run, version):
    version()
    assert re.search(r"clients reach\s+nothing", run("rollout", "status").output)
    assert "digits has no candidate." in run("rollout", "abort").output
    assert str(run("rollback").exception).startswith("digits has no champion in /")


def test_this_machine_has_no_rollouts():
    with pytest.raises(ConfigError, match="is this machine, which has no rollouts"):
        platforms.find_platform("digits", "local", (), print, None)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rolout.watch_seconds=5", "rolout is not a section here; did you mean rollout"),
        ("training.epochs=5", "training is not a section here; the sections are rollout, serving, env"),
        ("rollout=5", "not SECTION.KEY=VALUE"),
    ],
)
def test_an_override_that_deploy_does_not_read_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        platforms.find_platform("digits", "kind", [override], print, None)
