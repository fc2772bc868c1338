"""Versions and uploads: what is in use stays, whatever the policy says."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kubernetes.config import kube_config

from modelyard.components.errors import ClusterError, NotFoundError
from modelyard.pipelines.compile.compiler import LOCAL
from modelyard.pipelines.maintenance import plan
from modelyard.pipelines.maintenance.place import Place
from modelyard.pipelines.runners.kfp import submission
from modelyard.pipelines.runners.kfp.client import connect
from tests.integration.cleanup.conftest import DAY, LATER, Yard

Publish = Callable[..., int]
DATA = [f"uploads/data/{number * 64}" for number in "0123456789"]
COMPARED = "champion since a run began that may compare with it"
CODE = f"uploads/code/{'a' * 64}.zip"


def kept(yard: Yard, *overrides: str) -> dict[str, str | None]:
    return {name: thing.kept for name, thing in yard.found(*overrides).items()}


def test_what_is_champion_was_champion_is_served_or_new_stays(yard: Yard, publish: Publish) -> None:
    versions = [publish(f"run {number}") for number in range(7)]
    for version in (2, 4):
        yard.models.promote("digits", version, reason="better", by="test")
    yard.kubernetes.serves("digits", 1)
    yard.kubernetes.serves("other", 3)
    assert kept(yard) == {
        "digits/1": "served by digits-stable",
        "digits/2": "the champion before",
        "digits/3": None,
        "digits/4": "the champion",
        "digits/5": None,
        "digits/6": None,
        "digits/7": "one of the last 1",
    }
    assert yard.gc() == ({"digits/3", "digits/5", "digits/6"}, set())
    assert yard.models.versions("digits") == [1, 2, 4, 7]
    assert [entry.version for entry in yard.models.history("digits")] == [2, 4]
    assert versions == [1, 2, 3, 4, 5, 6, 7]
    assert yard.models.rollback("digits", reason="worse", by="test").version == 2
    assert yard.gc() == ({"digits/4"}, set())  # which was rolled back


def test_what_is_used_again_after_it_was_shown_stays(yard: Yard, publish: Publish) -> None:
    for number in range(4):
        publish(f"run {number}")
    found = yard.found()
    assert [found[f"digits/{version}"].kept for version in (1, 2, 3)] == [None] * 3
    yard.kubernetes.serves("digits", 1)
    yard.models.promote("digits", 2, reason="by hand", by="test")
    assert [found[f"digits/{version}"].remove() for version in (1, 2, 3)] == [False, False, True]
    assert yard.models.versions("digits") == [1, 2, 4]


def test_what_is_young_stays_and_so_does_what_a_run_may_still_compare_with(
    yard: Yard, publish: Publish
) -> None:
    for number in range(3):
        publish(f"run {number}")
    for version in (1, 2, 3):
        yard.models.promote("digits", version, reason="better", by="test")
    younger = "retention.younger_than=1m"
    assert yard.found(later=DAY)["digits/1"].kept == "younger than 30d"
    assert (
        yard.found(younger, "retention.versions=0", later=600)["digits/1"].kept
        == "champion since a run began that may compare with it"
    )
    assert yard.found(younger, later=2 * DAY)["digits/1"].kept is None


@pytest.mark.parametrize("unseen", [False, True], ids=["it is seen", "it is not"])
def test_a_run_that_is_tried_again_finds_the_champion_that_it_knows(
    yard: Yard, publish: Publish, unseen: bool
) -> None:
    for number in range(3):
        publish(f"run {number}")
    yard.models.promote("digits", 1, reason="better", by="test")
    run = submission.submit(connect(yard.environment), submission.prepare(yard.config(), yard.environment))
    for version in (2, 3):
        yard.models.promote("digits", version, reason="better", by="test")
    yard.site.runs.become(run.run_id, "FAILED")
    assert yard.found()["digits/1"].kept is None
    yard.site.runs.become(run.run_id, "RUNNING")  # 40 days later
    if unseen:
        text = yard.environment_file.read_text()
        yard.environment_file.write_text(text.replace(yard.site.server.url, "http://127.0.0.1:1"))
    assert yard.found()["digits/1"].kept == COMPARED


def test_nothing_in_a_bucket_goes_before_the_clusters_that_use_it_are_named(
    yard: Yard, publish: Publish
) -> None:
    publish("first")
    publish("second")
    yard.upload(DATA[0])
    place = Place(yard.config(), LOCAL, yard.home, time.time() + LATER)
    place.look(None)
    found = {thing.name: thing.kept for thing in plan.find(place)}
    assert found == {"digits/1": place.blind, "digits/2": "one of the last 1", DATA[0]: place.blind}
    assert "-e names the one to look at" in place.blind
    assert yard.found()["digits/1"].kept is None


def test_what_a_killed_run_left_goes_once_nobody_can_be_at_it(yard: Yard, tmp_path: Path) -> None:
    (tmp_path / "half").write_bytes(b"half")
    yard.models.reserve("digits", "killed")
    yard.store.upload("digits/versions/000001/model.onnx", tmp_path / "half")
    (one,) = yard.found("retention.younger_than=1m", later=600).values()
    assert (one.name, one.kept) == ("digits/1", "perhaps still written")
    assert yard.found()["digits/1"].kept is None
    assert not yard.found()["digits/1"].remove()  # the clock of its own says that it is new
    assert yard.store.exists("digits/versions/000001/model.onnx")


def test_versions_stay_when_it_cannot_be_seen_what_is_served(
    yard: Yard, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("run")
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", "/nowhere")
    with pytest.raises(ClusterError):
        yard.found()
    assert yard.models.versions("digits") == [1]


def test_another_models_versions_are_left_alone(yard: Yard, publish: Publish) -> None:
    for number in range(3):
        publish(f"run {number}", name="other")
    assert kept(yard) == {}


def test_an_upload_stays_for_a_version_a_run_a_schedule_and_its_own_youth(
    yard: Yard, publish: Publish
) -> None:
    for key in (*DATA[:5], CODE):
        yard.upload(key)
    yard.upload("uploads/data/what-somebody-put-here")
    publish(
        "other's",
        name="other",
        data={"source": f"gs://b/models/{DATA[0]}"},
        model={"code": f"gs://b/m/{CODE}"},
    )
    publish("gone", data={"source": f"gs://b/models/{DATA[1]}"})
    publish("last")
    backend = connect(yard.environment)
    source = {"source": f'{{"source": "gs://b/models/{DATA[2]}"}}'}
    prepared = submission.prepare(yard.config(), yard.environment)
    prepared.arguments.update(source)
    run = submission.submit(backend, prepared)
    expected = {
        DATA[0]: "other 1 was made of it",
        DATA[1]: None,
        DATA[2]: f"{run.display_name} was made of it",
        DATA[3]: None,
        DATA[4]: None,
        CODE: "other 1 was made of it",
    }
    assert {name: why for name, why in kept(yard).items() if name.startswith("uploads/")} == expected
    assert all(thing.kept for thing in yard.found(later=DAY).values())
    gone, left = yard.gc()
    assert (gone & set(DATA), left) == ({DATA[1], DATA[3], DATA[4]}, set())
    assert yard.store.keys("uploads/data/") == [DATA[0], DATA[2], "uploads/data/what-somebody-put-here"]


def test_a_checkpoint_goes_when_no_training_can_go_on_from_it(yard: Yard) -> None:
    state, models_own = f"checkpoints/{'a' * 64}/state.npz", "checkpoints/versions/000001/model.onnx"
    yard.upload(state)
    yard.upload(models_own)  # of a model of that name
    assert yard.found(later=DAY)[state].kept == "younger than 30d"
    soon = yard.found("retention.younger_than=1h", later=DAY / 2)
    assert soon[state].kept == "its training may still be at work"
    assert yard.gc() == ({state}, set())
    assert yard.store.keys("checkpoints/") == [models_own]


def test_an_upload_of_a_run_that_is_tried_again_meanwhile_stays(yard: Yard) -> None:
    yard.upload(DATA[0])
    prepared = submission.prepare(yard.config(), yard.environment)
    prepared.arguments.update(source=f'{{"source": "gs://b/models/{DATA[0]}"}}')
    run = submission.submit(connect(yard.environment), prepared)
    yard.site.runs.become(run.run_id, "FAILED")
    found = yard.found("retention.runs=0")
    assert (found[run.display_name].kept, found[DATA[0]].kept) == (None, None)
    yard.site.runs.become(run.run_id, "RUNNING")
    assert not found[run.display_name].remove()
    assert not found[DATA[0]].remove()
    assert yard.store.exists(DATA[0])


def test_what_kubeflow_pipelines_uses_stays_while_it_does_not_answer(yard: Yard, publish: Publish) -> None:
    publish("first")
    publish("second")
    yard.upload(DATA[0])
    text = yard.environment_file.read_text()
    yard.environment_file.write_text(text.replace(yard.site.server.url, "http://127.0.0.1:1"))
    place = yard.place()
    assert place.blind
    found = yard.found()
    assert found[DATA[0]].kept == place.blind
    assert yard.gc() == ({"digits/1"}, set())
    with pytest.raises(NotFoundError):
        yard.models.manifest("digits", 1)
