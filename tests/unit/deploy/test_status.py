"""What `rollout status` says of pods and of a stable that does not follow."""

import re
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from modelyard.components.deploy import objects, pulse
from modelyard.components.deploy.status import status
from modelyard.components.errors import NotFoundError
from modelyard.components.store.models import open_store
from modelyard.components.store.settings import Store
from modelyard.pipelines.cli.app import app
from modelyard.pipelines.serving import site as places


@pytest.fixture
def looked_at(site):
    site.models = SimpleNamespace(champion=lambda _: SimpleNamespace(version=1), history=lambda _: [])
    site.put_candidate(2, "d" * 64, "attempt", None)
    pulse.beat(site, "attempt")
    return lambda: status(site).troubles


def test_the_trouble_of_a_pod_that_is_ready_again_is_over(looked_at, pod):
    pod.runs(restarts=2, ready=False)
    assert "ended 2 times" in looked_at()[0]
    pod.runs(restarts=2)
    assert not any("ended" in trouble for trouble in looked_at())


def test_an_evicted_pod_is_no_trouble_for_ever(looked_at, pod):
    pod.runs(restarts=2, ready=False)
    pod.json["status"] |= {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."}
    assert [trouble[:12] for trouble in looked_at()] == ["The champion"]


@pytest.mark.usefixtures("cluster")
def test_what_to_do_about_a_stable_that_does_not_follow_is_a_whole_command(looked_at):
    assert "`modelyard deploy digits 1 -e ENV` brings it there" in looked_at()[0]


@pytest.mark.usefixtures("looked_at")
@pytest.mark.parametrize(
    "at", ["2026-01-02T03:04:05+00:00", "2026-01-02T03:04:05", "2026-01-02T05:04:05+02:00"]
)
def test_a_candidate_that_nobody_watches_is_shown_as_such(site, cluster, at):
    assert status(site).watched is True
    annotations = cluster.objects["Deployment digits-candidate"]["metadata"]["annotations"]
    annotations[objects.WATCHED] = at
    found = status(site)
    assert found.watched is False
    assert found.troubles[-1] == (
        "Nobody watches the candidate, version 2, since 2026-01-02 03:04 UTC: its deploy was killed. The "
        "next deploy takes its place; `modelyard rollout abort digits -e ENV` takes it away."
    )


@pytest.mark.usefixtures("looked_at")
def test_a_candidate_that_was_made_just_now_is_not_said_to_be_left_alone(site, cluster):
    made = cluster.objects["Deployment digits-candidate"]["metadata"]
    del made["annotations"][objects.WATCHED]
    made["creationTimestamp"] = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    assert status(site).watched is True


def test_a_stable_without_a_champion_is_a_trouble(site, version, deploy, monkeypatch):
    deploy(version())
    monkeypatch.setattr(site.models, "champion", lambda _: None)
    (trouble,) = status(site).troubles
    assert trouble.startswith("Stable serves version 1, and digits has no champion in /")
    assert "`modelyard deploy digits 1 -e ENV` makes it that" in trouble


@pytest.fixture
def run(site, monkeypatch):
    """Return what runs a command at this place."""
    monkeypatch.setattr(places, "find_place", lambda *_: site)
    return lambda *line: CliRunner().invoke(app, [*line, "digits", "-e", "kind"])


@pytest.mark.parametrize("line", [("rollout", "status"), ("rollout", "abort"), ("rollback",)])
def test_of_a_model_that_does_not_exist_all_commands_say_so(site, run, tmp_path, line):
    site.models = open_store(Store(url=f"file://{tmp_path}"))
    error = run(*line).exception
    assert isinstance(error, NotFoundError)
    assert str(error).startswith("There is no model digits in /")


@pytest.mark.usefixtures("site")
def test_of_a_model_that_nobody_promoted_yet(run, version):
    version()
    assert re.search(r"clients reach\s+nothing", run("rollout", "status").output)
    assert "digits has no candidate." in run("rollout", "abort").output
    assert str(run("rollback").exception).startswith("digits has no champion in /")
