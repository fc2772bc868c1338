"""Servers of a version get what its own run said, whoever puts them there."""

from types import SimpleNamespace

import pytest

from modelyard.components.deploy import candidate, deployer, objects, rollout, stable
from modelyard.components.errors import DeployError


@pytest.fixture
def promote(site, version):
    """Publish versions 1 and 2, each with a section of its own; return what makes one the champion."""
    version()
    version()
    site.serving = lambda number: {"max_batch": number}
    return lambda number: site.models.promote("digits", number, reason="by hand", by="test")


def test_stable_gets_the_section_of_the_version_that_is_put_there(site, promote):
    for number in (1, 2):
        promote(number)
        stable.put(site)
        assert objects.serving(site.deployment("stable"))["max_batch"] == number


def test_a_candidate_that_is_promoted_by_hand_keeps_its_image_and_its_section(site, promote):
    promote(1)
    site.put_candidate(2, site.models.digest("digits", 2), "attempt", None)
    found = candidate.find(site)
    site.serving = lambda _: {"max_batch": 99}
    site.target = site.target.model_copy(update={"image": "serve:of-somebody-else"})
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
