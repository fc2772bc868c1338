"""Golden requests, and decisions of the step deploy."""

import json
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from modelyard.components.artifacts import Golden
from modelyard.components.deploy import deployer, stable
from modelyard.components.deploy.platforms import local
from modelyard.components.deploy.platforms.local import LocalPlatform
from modelyard.components.deploy.settings import Rollout, Target
from modelyard.components.deploy.verification import PinnedVersion, pin_version, replay_golden_requests
from modelyard.components.errors import DeployError, UnreachableError
from modelyard.components.server import GOLDEN_HEADERS
from modelyard.components.store.models import ModelStore
from tests.unit.deploy.memory import Fault, FaultyProxy, Killed

GOLDEN = Golden(problem="classification", instances=[[0.0], [1.0]], predictions=[[0.25, 0.75], [0.5, 0.5]])
PINNED = PinnedVersion(7, "d" * 64, GOLDEN)
GOOD = {"predictions": [[0.25, 0.75]]}


@dataclass
class Server:
    replies: list[Any]

    def request(self, method: str, path: str, body: bytes, headers: Any) -> tuple[int, bytes]:
        assert (method, path, headers) == ("POST", "/v1/models/digits/versions/7:predict", GOLDEN_HEADERS)
        reply = self.replies[GOLDEN.instances.index(json.loads(body)["instances"][0])]
        return 200, json.dumps(reply).encode()


def test_predictions_within_the_tolerance_pass():
    replies = [{"predictions": [[0.255, 0.745]]}, {"predictions": [[0.5, 0.5]]}]
    replay_golden_requests(Server(replies), "digits", PINNED, 0.01)


@pytest.mark.parametrize(
    "reply",
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
def test_wrong_replies_fail(reply):
    with pytest.raises(DeployError, match=r"Version 7 of digits .* golden request 1"):
        replay_golden_requests(Server([GOOD, reply]), "digits", PINNED, 0.01)


def test_version_without_a_golden_request_is_refused(models, publish):
    v1 = publish()
    assert pin_version(models, "digits", 1) == v1
    with pytest.raises(DeployError, match=r"golden\.json of version 2 of digits"):
        pin_version(models, "digits", publish(count=0).version)


def test_golden_tolerance_is_configurable(controller, publish, deploy):
    """The servers of the platform in memory always reply 1.0."""
    with pytest.raises(DeployError, match=r"0\.1, more than 0\.0001 \(rollout\.golden_tolerance"):
        deploy(publish(prediction=0.9))
    controller.rollout = controller.rollout.model_copy(update={"golden_tolerance": 0.2})
    assert deploy(publish(prediction=0.9)).decision == "promote"


@pytest.mark.parametrize("conflict", [False, True])
def test_local_platform_verifies_and_promotes(models, new_controller, publish, monkeypatch, conflict):
    v1, started = publish(), []

    @contextmanager
    def running_server(*arguments):
        started.append(arguments[-1])
        if conflict:
            models.promote("digits", publish().version, reason="concurrent", by="another")
        yield "http://server"

    monkeypatch.setattr(local, "running_server", running_server)
    monkeypatch.setattr(stable, "replay_golden_requests", lambda *_: None)
    controller = new_controller(
        LocalPlatform("digits", models, Target(), "{}", lambda _: {}, Rollout(), print)
    )
    outcome = controller.roll_out(v1, 0, "good")
    assert outcome.decision == ("hold" if conflict else "promote")
    assert started == [1]
    if not conflict:
        assert models.champion("digits").reason == "good", "there is no canary analysis"
        assert controller.roll_out(v1, 0, "good").decision == "promote"
        assert started == [1], "the champion is not verified again"


@pytest.mark.parametrize(
    "failure", ["fails before", "fails after", "killed before", "killed after", "unreachable"]
)
def test_manual_promotion_succeeds_after_a_failure_at_any_call(
    models, new_controller, publish, monkeypatch, promote, failure
):
    v1, v2 = publish(), publish()
    promote(v1)
    monkeypatch.setattr(local, "running_server", lambda *_: nullcontext("http://server"))
    monkeypatch.setattr(stable, "replay_golden_requests", lambda *_: None)
    published, at, calls = dict(models._objects._data), 0, 1
    while calls >= at:
        models._objects._data, at = dict(published), at + 1
        fault = Fault(at, failure)
        objects: Any = FaultyProxy(models._objects, fault, UnreachableError)
        for store in (ModelStore(objects), models):
            platform = LocalPlatform("digits", store, Target(), "{}", lambda _: {}, Rollout(), print)
            with suppress(Killed, UnreachableError):
                new_controller(platform, store).promote(pin_version(store, "digits", 2), "good")
            assert models.champion("digits").version in (1, 2)
            calls = fault.calls
        assert models.champion("digits").version == v2.version, "the repeated promotion failed"
    assert at > 10


@pytest.mark.parametrize(
    ("target", "command"),
    [
        (Target(), "modelyard models promote digits 2"),
        (Target(platform="deployment", image="serve:1"), "modelyard deploy -e ENV digits 2"),
    ],
)
def test_rolled_back_version_is_held_with_the_command_to_deploy_it(target, command):
    models: Any = SimpleNamespace(
        champion=lambda _: None, find_rollback=lambda *_: SimpleNamespace(at="noon", reason="bad")
    )
    outcome = deployer._hold_if_rolled_back(models, "digits", 2, target)
    assert outcome.decision == "hold"
    assert outcome.reason.endswith(f"was rolled back at noon (bad); `{command}` deploys it")


def test_each_version_has_the_serving_section_of_its_run():
    recorded = {"serving": {"max_batch": 3, "unknown_key": 1}}
    models: Any = SimpleNamespace(manifest=lambda *_: SimpleNamespace(config=recorded))
    serving = deployer._create_section_reader(models, "digits", 7, {"max_batch": 1, "threads": 2})
    assert serving(7) == {"max_batch": 1, "threads": 2}
    assert serving(6) == {"max_batch": 3, "threads": 2}
