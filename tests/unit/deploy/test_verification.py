"""Golden requests must get the answers that evaluate saw; and what the step deploy decides."""

import json
from contextlib import nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from modelyard.components.artifacts import Golden
from modelyard.components.deploy import deployer, tracks
from modelyard.components.deploy.settings import Target
from modelyard.components.deploy.verification import DirectTarget, PinnedVersion, pin_version, replay
from modelyard.components.errors import ConflictError, DeployError

SEEN = Golden(instances=[[0.0], [1.0]], predictions=[[0.25, 0.75], [0.5, 0.5]])
PINNED = PinnedVersion(7, "d" * 64, SEEN)
GOOD = {"predictions": [[0.25, 0.75]]}


@dataclass
class Server:
    answers: list[Any]

    def send(self, method: str, path: str, body: Any = None) -> bytes:
        assert (method, path) == ("POST", "/v1/models/digits/versions/7:predict")
        return json.dumps(self.answers[SEEN.instances.index(body["instances"][0])]).encode()


def test_answers_within_the_tolerance_pass():
    answers = [{"predictions": [[0.255, 0.745]]}, {"predictions": [[0.5, 0.5]]}]
    replay(Server(answers), "digits", PINNED, 0.01)


@pytest.mark.parametrize(
    "answer",
    [
        {"predictions": [[0.5, 0.52]]},
        {"predictions": [[0.5, float("nan")]]},
        {"predictions": [[float("nan"), 0.5]]},
        {"predictions": [[0.5]]},
        {"predictions": [[0.5, 0.5, 0.0]]},
        {"predictions": [["a", "b"]]},
        {"predictions": []},
        {"error": "no"},
        None,
    ],
)
def test_others_do_not(answer):
    with pytest.raises(DeployError, match=r"Version 7 of digits .* golden request 1 "):
        replay(Server([GOOD, answer]), "digits", PINNED, 0.01)


def test_a_server_that_is_not_there_is_named():
    with pytest.raises(DeployError, match=r"http://127\.0\.0\.1:9 did not answer"):
        DirectTarget("http://127.0.0.1:9").send("GET", "/metrics")


def test_a_version_whose_golden_requests_are_none_is_refused(platform, version):
    one = version()
    assert pin_version(platform.models, "digits", 1) == one
    with pytest.raises(DeployError, match=r"golden\.json of version 2 of digits holds no request"):
        pin_version(platform.models, "digits", version(count=0).version)


@pytest.mark.usefixtures("pod")
def test_the_configuration_says_how_much_may_differ(platform):
    """The servers of the double answer 1.0 to anything."""
    pinned = PinnedVersion(2, "d" * 64, Golden(instances=[[0]], predictions=[[0.9]]))
    with pytest.raises(DeployError, match=r"differ by 0\.1 and 0\.0001 is allowed \(rollout\.golden_toleran"):
        tracks.verify_pods(platform, "candidate", pinned)
    platform.rollout = platform.rollout.model_copy(update={"golden_tolerance": 0.2})
    assert tracks.verify_pods(platform, "candidate", pinned) == 1


@pytest.mark.parametrize("conflict", [False, True])
def test_a_laptop_verifies_and_promotes_too(platform, version, monkeypatch, conflict):
    one, models = version(), platform.models
    seen = {}
    monkeypatch.setattr(deployer, "running_server", lambda *_: nullcontext("http://here"))
    monkeypatch.setattr(deployer, "replay", lambda *arguments: seen.update(tolerance=arguments[-1]))
    if conflict:
        models.promote("digits", version().version, reason="meanwhile", by="another")
    rollout = '{"golden_tolerance": 0.5}'
    outcome = deployer._promote(models, "digits", one.version, 0, "{}", "{}", rollout, Target())
    assert outcome.decision == ("hold" if conflict else "promote")
    assert seen == {"tolerance": 0.5}
    if not conflict:
        again = deployer._promote(models, "digits", one.version, 0, "{}", "{}", rollout, Target())
        assert (again.version, again.decision) == (1, "promote")
    else:
        with pytest.raises(ConflictError):
            models.promote("digits", 1, reason="", by="", expected=0)


@pytest.mark.parametrize(
    ("target", "command"),
    [
        (Target(), "modelyard models promote digits 2"),
        (Target(kind="kubernetes", image="serve:1"), "modelyard deploy digits 2 -e ENV"),
    ],
)
def test_what_brings_a_version_back_that_was_rolled_back_fits_where_it_is_served(target, command):
    models: Any = SimpleNamespace(
        manifest=lambda *_: SimpleNamespace(decision=None),
        champion=lambda _: None,
        rolled_back=lambda *_: SimpleNamespace(at="noon", reason="bad"),
    )
    held = deployer._promote(models, "digits", 2, 1, "{}", "{}", "{}", target)
    assert held.decision == "hold"
    assert held.reason.endswith(f"was rolled back at noon (bad); `{command}` brings it back")


def test_a_run_serves_its_version_as_it_says_and_another_one_as_that_ones_run_said():
    recorded = {"serving": {"max_batch": 3, "of_another_modelyard": 1}}
    models: Any = SimpleNamespace(manifest=lambda *_: SimpleNamespace(config=recorded))
    serving = deployer._sections(models, "digits", 7, {"max_batch": 1, "threads": 2})
    assert serving(7) == {"max_batch": 1, "threads": 2}
    assert serving(6) == {"max_batch": 3, "threads": 2}
