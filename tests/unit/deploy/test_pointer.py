"""Stable follows the champion pointer, also where somebody else or an absent store interferes."""

from types import SimpleNamespace

import pytest

from modelyard.components.artifacts import Golden
from modelyard.components.deploy import deployer, objects, stable
from modelyard.components.deploy.settings import Target


def test_stable_is_written_again_after_a_race_that_was_lost(site, cluster, version):
    version()
    site.models.promote("digits", version().version, reason="by hand", by="test")
    races = [1]
    apply = cluster.apply

    def overtaken(wanted, manager):
        written = apply(wanted, manager)
        if races and wanted["kind"] == "Deployment":
            apply(
                {**wanted, "metadata": {**wanted["metadata"], "labels": {objects.VERSION: f"{races.pop()}"}}},
                "",
            )
        return written

    cluster.apply = overtaken
    stable.put(site)
    assert objects.version(cluster.get("Deployment", "digits-stable")) == 2


@pytest.mark.parametrize(
    ("target", "command"),
    [
        (Target(), "modelyard models promote digits 2"),
        (Target(kind="kubernetes", image="serve:1"), "modelyard deploy digits 2 -e ENV"),
    ],
)
def test_what_brings_a_version_back_that_was_rolled_back_fits_where_it_is_served(target, command):
    models = SimpleNamespace(
        manifest=lambda *_: SimpleNamespace(decision=None),
        champion=lambda _: None,
        rolled_back=lambda *_: SimpleNamespace(at="noon", reason="bad"),
    )
    golden = Golden(instances=[], predictions=[])
    held = deployer._promote(models, "digits", 2, 1, golden, "{}", "{}", "{}", target)
    assert held.decision == "hold"
    assert held.reason.endswith(f"was rolled back at noon (bad); `{command}` brings it back")
