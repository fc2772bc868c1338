"""Servers of a version get what its own run said, whoever puts them there."""

from types import SimpleNamespace

import pytest

from components.artifacts import Golden
from components.deploy import candidate, deployer, objects, rollout, stable
from components.deploy.version import Served
from components.errors import DeployError

DIGEST = "d" * 64


@pytest.fixture
def pointer(site):
    """A store whose champion is version 1 for now; each version has a section of its own."""
    champion = SimpleNamespace(version=1, digest=DIGEST, reason="good")

    def promote(_, version, **__):
        champion.version = version

    site.models = SimpleNamespace(champion=lambda _: champion, promote=promote)
    site.serving = lambda version: {"max_batch": version}
    return champion


def test_stable_gets_the_section_of_the_version_that_is_put_there(site, pointer):
    for version in (1, 2):
        pointer.version = version
        stable.put(site)
        assert objects.serving(site.deployment("stable"))["max_batch"] == version


@pytest.mark.usefixtures("pointer", "pod")
def test_a_candidate_that_is_promoted_by_hand_keeps_its_image_and_its_section(site, monkeypatch):
    site.put_candidate(2, DIGEST, "attempt", None)
    found = candidate.find(site)
    site.serving = lambda _: {"max_batch": 99}
    site.target = site.target.model_copy(update={"image": "serve:of-somebody-else"})
    served = Served(2, DIGEST, Golden(instances=[], predictions=[]))
    monkeypatch.setattr(rollout, "pinned", lambda *_: served)
    assert rollout.promote_candidate(site, found, "good", "test").version == 2
    promoted = site.deployment("stable")
    assert (objects.version(promoted), objects.image(promoted)) == (2, "serve:1")
    assert objects.serving(promoted)["max_batch"] == 2


def test_where_there_is_no_candidate_it_says_what_makes_one(site):
    with pytest.raises(DeployError, match="`modelyard deploy digits VERSION -e ENV` makes one"):
        candidate.find(site)


def test_a_run_serves_its_version_as_it_says_and_another_one_as_that_ones_run_said():
    recorded = {"serving": {"max_batch": 3, "of_another_modelyard": 1}}
    models = SimpleNamespace(manifest=lambda *_: SimpleNamespace(config=recorded))
    serving = deployer._sections(models, "digits", 7, {"max_batch": 1, "threads": 2})
    assert serving(7) == {"max_batch": 1, "threads": 2}
    assert serving(6) == {"max_batch": 3, "threads": 2}
