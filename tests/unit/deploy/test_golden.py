"""Golden requests: anything but the answers that evaluate saw is an error."""

from contextlib import nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from modelyard.components.artifacts import Golden
from modelyard.components.deploy import deployer, golden, server, stages
from modelyard.components.deploy.settings import Target
from modelyard.components.deploy.version import Served
from modelyard.components.errors import DeployError

SEEN = Golden(instances=[[0.0], [1.0]], predictions=[[0.25, 0.75], [0.5, 0.5]])


@dataclass
class Server:
    answers: list[Any]

    def get(self, path: str) -> bytes:
        raise AssertionError(path)

    def post(self, path: str, body: Any) -> Any:
        assert path == "/v1/models/digits/versions/7:predict"
        return self.answers[SEEN.instances.index(body["instances"][0])]


def test_answers_within_the_tolerance_pass():
    answers = [{"predictions": [[0.255, 0.745]]}, {"predictions": [[0.5, 0.5]]}]
    golden.replay(Server(answers), "digits", 7, SEEN, 0.01)


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
        golden.replay(Server([{"predictions": [[0.25, 0.75]]}, answer]), "digits", 7, SEEN, 0.01)


@pytest.mark.usefixtures("pod")
def test_the_configuration_says_how_much_may_differ(site):
    """The servers of the double answer 1.0 to anything."""
    site.put_candidate(2, "d" * 64, "attempt", None)
    served = Served(2, "d" * 64, Golden(instances=[[0]], predictions=[[0.9]]))
    with pytest.raises(
        DeployError, match=r"differ by 0\.1 and 0\.0001 is allowed \(rollout\.golden_tolerance\)"
    ):
        stages.verify(site, served, lambda found: found or {})
    site.rollout = site.rollout.model_copy(update={"golden_tolerance": 0.2})
    stages.verify(site, served, lambda found: found or {})


def test_on_this_machine_too(monkeypatch):
    models = SimpleNamespace(
        manifest=lambda *_: SimpleNamespace(decision=SimpleNamespace(reason="good")),
        champion=lambda _: None,
        rolled_back=lambda *_: None,
    )
    seen = {}
    monkeypatch.setattr(server, "running", lambda *_: nullcontext("http://here"))
    monkeypatch.setattr(golden, "replay", lambda *arguments: seen.update(tolerance=arguments[-1]))
    models.promote = lambda *_, **__: None
    rollout = '{"golden_tolerance": 0.5}'
    assert (
        deployer._promote(models, "digits", 2, 0, SEEN, "{}", "{}", rollout, Target()).decision == "promote"
    )
    assert seen == {"tolerance": 0.5}
