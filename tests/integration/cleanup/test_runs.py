"""Runs go with their records, artifacts, pods and what a cache has of them; what another one uses stays."""

import json
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from modelyard.components import lifeline
from modelyard.pipelines.maintenance.mark import mark
from modelyard.pipelines.runners.kfp import submission
from modelyard.pipelines.runners.kfp.client import connect
from modelyard.pipelines.runners.pods.run import PodRun
from modelyard.pipelines.train_to_serve import NAME
from tests.integration.cleanup.conftest import DAY, Yard

OLD = [f"2026010{day}-120000-aaaa" for day in range(1, 6)]


# On Kubeflow Pipelines


def submitted(yard: Yard, state: str = "SUCCEEDED", *overrides: str) -> Any:
    """Let a run have happened, with an artifact in the bucket."""
    prepared = submission.prepare(yard.config(*overrides), yard.environment)
    run = submission.submit(connect(yard.environment), prepared)
    yard.site.runs.become(run.run_id, state)
    yard.write(f"{NAME}/{run.run_id}/train/7/model/model.onnx")
    return run


def took(yard: Yard, run: Any, other: Any) -> None:
    """Let a run have taken an artifact of another one from the cache."""
    address = f"{yard.environment.pipeline_root}/{NAME}/{other.run_id}/train/7/model"
    name = yard.site.runs.step(run.run_id, "evaluate", "Succeeded")
    nodes = yard.site.runs.workflow(run.run_id)["status"]["nodes"]
    patch = {"name": "pod-spec-patch", "value": json.dumps({"args": [json.dumps({"uri": address})]})}
    next(iter(nodes.values()))["outputs"] = {"parameters": [patch]}
    assert name


def with_artifacts(yard: Yard) -> list[str]:
    return yard.bucket.folders(f"{NAME}/")


def test_old_runs_go_with_their_artifacts_and_the_latest_and_what_it_uses_stay(yard: Yard) -> None:
    gone, used, last = (submitted(yard) for _ in range(3))
    took(yard, last, used)
    found = yard.found()
    assert [found[run.display_name].kept for run in (gone, used, last)] == [
        None,
        f"{last.display_name} uses it",
        "one of the last 1",
    ]
    assert all(thing.kept for thing in yard.found(later=DAY).values())
    assert yard.gc() == ({gone.display_name}, set())
    assert yard.site.runs.runs.keys() == {used.run_id, last.run_id}
    assert set(with_artifacts(yard)) == {used.run_id, last.run_id}


def test_artifacts_wait_for_a_run_in_flight_that_may_use_them(yard: Yard) -> None:
    gone, busy = submitted(yard), submitted(yard, "RUNNING")
    assert yard.gc() == (set(), {gone.display_name})
    assert yard.site.runs.runs.keys() == {busy.run_id}  # nobody takes them from the cache any more
    assert set(with_artifacts(yard)) == {gone.run_id, busy.run_id}
    yard.site.runs.become(busy.run_id, "SUCCEEDED")
    orphan = f"{NAME}/{gone.run_id}"
    assert yard.found()[orphan].why == "its run is gone"
    assert yard.gc() == ({orphan}, set())
    assert with_artifacts(yard) == [busy.run_id]
    assert yard.bucket.keys("removed/") == []


def test_artifacts_do_not_wait_for_a_run_that_began_when_nothing_gave_them_any_more(yard: Yard) -> None:
    gone, busy = submitted(yard), submitted(yard, "RUNNING")
    assert yard.gc() == (set(), {gone.display_name})
    assert yard.gc() == (set(), {f"{NAME}/{gone.run_id}"})
    yard.site.runs.runs[busy.run_id].created_at += timedelta(hours=1)
    assert yard.gc() == ({f"{NAME}/{gone.run_id}"}, set())


def test_artifacts_wait_for_a_run_that_was_tried_again_long_after_it_began(yard: Yard) -> None:
    busy, gone = submitted(yard, "RUNNING"), submitted(yard)
    for _ in range(12):
        submitted(yard)
    yard.site.runs.runs[busy.run_id].created_at -= timedelta(days=5)
    assert gone.display_name in yard.gc()[1]
    assert gone.run_id in with_artifacts(yard)


def test_a_run_that_is_tried_again_meanwhile_stays(yard: Yard) -> None:
    failed = submitted(yard, "FAILED")
    submitted(yard)
    thing = yard.found()[failed.display_name]
    yard.site.runs.become(failed.run_id, "RUNNING")
    assert thing.kept is None
    assert not thing.remove()
    assert failed.run_id in yard.site.runs.runs
    assert failed.run_id in with_artifacts(yard)


def test_what_others_have_under_the_pipeline_root_is_left_alone(yard: Yard) -> None:
    of_another_server = f"{NAME}/{uuid4()}/train/7/model"
    for key in ("other-pipeline/1/model", f"{NAME}/notes/readme.txt", "notes.txt", of_another_server):
        yard.write(key)
    mark(yard.bucket, str(uuid4()), "an experiment of another server")
    submitted(yard)
    assert [name for name, thing in yard.found().items() if thing.kept is None] == []


@pytest.mark.parametrize("override", ["name=other", "store.url=gs://elsewhere/models"])
def test_runs_of_another_model_are_left_alone_and_keep_what_they_use(yard: Yard, override: str) -> None:
    gone, used, last = (submitted(yard) for _ in range(3))
    others = [submitted(yard, "SUCCEEDED", override) for _ in range(2)]
    took(yard, others[0], used)
    found = yard.found()
    assert found.keys() == {run.display_name for run in (gone, used, last)}
    assert found[used.display_name].kept == f"{others[0].display_name} uses it"
    assert yard.gc() == ({gone.display_name}, set())
    assert {run.run_id for run in others} <= yard.site.runs.runs.keys()


@pytest.mark.parametrize("parameters", [{}, {"store": "the corner shop"}, {"recipe": "x", "store": "{}"}])
def test_a_strangers_run_in_the_experiment_is_left_alone(yard: Yard, parameters: dict[str, str]) -> None:
    first, _ = submitted(yard), submitted(yard)
    yard.site.runs.runs[first.run_id].runtime_config.parameters = parameters
    assert first.display_name not in yard.found()


# Of `modelyard run`, here and in pods


def ran(yard: Yard, name: str, uses: tuple[str, ...] = ()) -> Path:
    """Let a run of this machine have ended, with artifacts, which the cache knows."""
    run = yard.home / "runs" / name
    (run / "artifacts/train/model").mkdir(parents=True)
    (run / "artifacts/train/model/model.onnx").write_bytes(b"onnx" * 100)
    (run / "lifeline").touch()
    summary = {"run": name, "model": "digits", "state": "succeeded", "steps": [], "seconds": 1.0}
    (run / "run.json").write_text(json.dumps({**summary, "store": "s", "uses": uses}))
    entry = {"model": {"uri": f"{run}/artifacts/train/model"}}
    (yard.home / f"cache/{name}.json").write_text(json.dumps(entry))
    return run


def cached(yard: Yard) -> list[str]:
    return sorted(path.stem for path in (yard.home / "cache").glob("*.json"))


@contextmanager
def alive(run: Path) -> Any:
    with lifeline.hold(run / "lifeline"):
        yield


def test_runs_of_this_machine_go_and_the_latest_and_what_it_uses_stay(yard: Yard) -> None:
    followed = f"{OLD[0]}-digits"  # on Kubeflow Pipelines
    for name in (*OLD[:3], followed):
        ran(yard, name)
    ran(yard, OLD[3], uses=(OLD[1],))
    gone = {f"{name} (this machine)" for name in (OLD[0], followed, OLD[2])}
    assert yard.found()[f"{OLD[0]} (this machine)"].size > 400
    assert yard.gc() == (gone, set())
    assert sorted(path.name for path in (yard.home / "runs").iterdir()) == [OLD[1], OLD[3]]
    assert cached(yard) == [OLD[1], OLD[3]]
    assert list((yard.home / "removed").iterdir()) == []


def test_nothing_of_this_machine_goes_while_a_run_may_use_it(yard: Yard) -> None:
    old, busy = ran(yard, OLD[0]), ran(yard, OLD[1])
    with alive(busy):
        assert yard.gc() == (set(), {f"{OLD[0]} (this machine)"})
        assert (old / "artifacts/train/model/model.onnx").is_file()
        assert cached(yard) == [OLD[1]]  # nobody begins to use it
    with alive(ran(yard, f"{datetime.now() + timedelta(days=2):%Y%m%d}-120000-cccc")):  # began after that
        assert yard.gc("retention.runs=2") == ({f"{OLD[0]} (this machine)"}, set())


def test_what_a_killed_gc_left_of_a_run_goes(yard: Yard) -> None:
    (yard.home / "removed" / OLD[0]).mkdir(parents=True)
    assert yard.gc() == ({f"{OLD[0]} (the rest of it)"}, set())
    assert list((yard.home / "removed").iterdir()) == []


def test_artifacts_of_pods_go_and_no_cache_believes_in_what_is_left_of_them(yard: Yard) -> None:
    for name in OLD[:3]:
        yard.write(f"{name}/x/train/model/model.onnx")
    for name in OLD[:2]:
        entry = {"model": {"uri": f"{yard.environment.pipeline_root}/{name}/x/train/model"}}
        (yard.home / f"cache/{name}.json").write_text(json.dumps(entry))
    yard.kubernetes.runs("20260901-120000-bbbb")  # somebody else's, at work
    assert yard.gc() == (set(), {OLD[0], OLD[1]})
    assert yard.bucket.exists(f"{OLD[0]}/x/train/model/model.onnx")
    assert cached(yard) == []
    entry = {"model": {"uri": f"{yard.environment.pipeline_root}/{OLD[0]}/x/train/model"}}
    (yard.home / "cache/late.json").write_text(json.dumps(entry))  # on another machine
    PodRun(yard.config(), ran(yard, OLD[4]), yard.environment)._forget()
    assert "late" not in cached(yard)

    yard.kubernetes.pods.clear()
    assert yard.gc("retention.runs=2")[0] == {OLD[0], OLD[1]}
    assert yard.bucket.keys("") == [f"{OLD[2]}/x/train/model/model.onnx"]


@pytest.mark.parametrize("phase", ["Succeeded", "Failed", "Running"])
def test_pods_go_when_they_or_their_run_ended(yard: Yard, phase: str) -> None:
    run = ran(yard, OLD[0])
    yard.kubernetes.runs(OLD[0], "Running")  # its run was killed
    yard.kubernetes.runs("20260901-120000-bbbb", phase)  # of another machine
    with alive(run):
        assert yard.found()[f"{OLD[0]}-train"].kept == "its run may live"
    other = yard.found(later=600)["20260901-120000-bbbb-train"]
    assert other.kept == "its run may live"  # who follows it may not have seen its end
    gone = {f"{OLD[0]}-train"} | ({"20260901-120000-bbbb-train"} if phase != "Running" else set())
    assert yard.gc("retention.runs=9")[0] == gone
    assert len(yard.kubernetes.pods) == (1 if phase == "Running" else 0)


@pytest.mark.parametrize("phase", ["Succeeded", "Failed", "Running"])
def test_probes_are_no_runs_and_go_when_no_plan_follows_them(yard: Yard, phase: str) -> None:
    yard.kubernetes.probes("plan-digits-12345678", phase)
    assert yard.found(later=3600)["plan-digits-12345678"].kept == "its plan may live"
    assert list(yard.place().alive()) == []
    assert yard.gc()[0] == {"plan-digits-12345678"}
    assert yard.kubernetes.pods == []
