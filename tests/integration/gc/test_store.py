"""Versions, uploads and checkpoints in use are not removed with any policy."""

import pytest

from modelyard.components.errors import BackendError, ClusterError, NotFoundError
from modelyard.pipelines.environments.environment import Environment
from tests.integration.gc.conftest import DAY, Workspace

DATA = [f"uploads/data/{number * 64}" for number in "0123456789"]
CODE = f"uploads/code/{'a' * 64}.zip"
CHAMPION_OF_A_RUN = "a champion that an active run may compare with"
CHECKPOINT = f"checkpoints/{'a' * 64}/state.npz"


def test_champions_served_and_latest_versions_are_not_removed(workspace: Workspace) -> None:
    workspace.publish_runs(7)
    workspace.promote(2, 4)
    workspace.servers.serve("digits", 1)
    workspace.servers.serve("other", 3)
    assert workspace.reasons() == {
        "digits/1": "served in modelyard-serving",
        "digits/2": "the previous champion",
        "digits/3": None,
        "digits/4": "the champion",
        "digits/5": None,
        "digits/6": None,
        "digits/7": "one of the last 1",
    }
    assert workspace.gc() == ({"digits/3", "digits/5", "digits/6"}, set())
    assert workspace.models.versions("digits") == [1, 2, 4, 7]
    assert [entry.version for entry in workspace.models.history("digits")] == [2, 4]
    assert workspace.models.rollback("digits", reason="worse", by="test").version == 2
    assert workspace.gc() == ({"digits/4"}, set())  # it was rolled back


def test_a_version_that_is_used_after_find_is_not_removed(workspace: Workspace) -> None:
    workspace.publish_runs(4)
    objects = workspace.find()
    assert [objects[f"digits/{version}"].keep_reason for version in (1, 2, 3)] == [None] * 3
    workspace.servers.serve("digits", 1)
    workspace.promote(2)
    assert [objects[f"digits/{version}"].remove() for version in (1, 2, 3)] == [False, False, True]
    assert workspace.models.versions("digits") == [1, 2, 4]


def test_a_version_that_another_environment_serves_is_not_removed(workspace: Workspace) -> None:
    workspace.publish_runs(4)
    objects = workspace.find()
    workspace.models.record_served("digits", "another-cluster", "serving", [1, 3])
    assert [name for name, reason in workspace.reasons().items() if "another environment" in str(reason)] == [
        "digits/1",
        "digits/3",
    ]
    assert [objects[f"digits/{version}"].remove() for version in (1, 2)] == [False, True], (
        "recorded after find"
    )
    workspace.models.record_served("digits", "another-cluster", "serving", [3])
    assert workspace.gc() == ({"digits/1"}, set())


def test_versions_younger_than_the_policy_or_a_run_are_not_removed(workspace: Workspace) -> None:
    workspace.publish_runs(3)
    workspace.promote(1, 2, 3)
    younger = "retention.younger_than=1m"
    assert workspace.reasons(later=DAY / 2)["digits/1"] == CHAMPION_OF_A_RUN
    assert workspace.reasons(later=2 * DAY)["digits/1"] == "younger than 30d"
    assert workspace.reasons(younger, later=2 * DAY)["digits/1"] is None


@pytest.mark.parametrize("runner", ["kfp", "pods"])
def test_the_champion_at_the_start_of_an_active_run_is_not_removed(workspace: Workspace, runner: str) -> None:
    workspace.publish_runs(3)
    workspace.promote(1)
    run = workspace.servers.submit("FAILED")
    workspace.promote(2, 3)
    assert workspace.reasons()["digits/1"] is None
    if runner == "kfp":
        run["state"] = "RUNNING"  # retried, 40 days later
    else:
        workspace.servers.run_pod("20260101-120000-bbbb")  # a run of another machine
    assert workspace.reasons()["digits/1"] == CHAMPION_OF_A_RUN
    workspace.servers.run_pod("20260101-120000-cccc", "Succeeded")
    run["state"], workspace.servers.pods[:1] = "SUCCEEDED", []
    assert workspace.reasons()["digits/1"] is None


def test_an_incomplete_version_is_removed_after_the_deadline_of_a_run(workspace: Workspace) -> None:
    workspace.config_file.with_name("partial").write_bytes(b"partial")
    workspace.models.reserve("digits", "killed")
    workspace.store.upload("digits/versions/000001/model.onnx", workspace.config_file.with_name("partial"))
    younger = "retention.younger_than=1m"
    assert workspace.reasons(younger, later=600)["digits/1"] == "a run of the last 86400 s may use it"
    (version,) = workspace.find().values()
    assert (version.name, version.keep_reason) == ("digits/1", None)
    assert not version.remove()  # by the clock of the store, it is new
    assert workspace.store.find("digits/versions/000001/model.onnx")


def test_a_version_without_a_manifest_is_removed_unless_it_is_the_champion(workspace: Workspace) -> None:
    workspace.publish_runs(4)
    workspace.promote(1, 2, 3)

    def delete_manifest(version: int) -> None:
        entry = workspace.store.find(f"digits/versions/{version:06d}/manifest.json")
        assert entry
        assert workspace.store.delete(entry)

    delete_manifest(1)
    version = workspace.find()["digits/1"]
    assert (version.keep_reason, "manifest.json" in version.reason) == (None, True)
    delete_manifest(3)
    with pytest.raises(NotFoundError, match=r"manifest\.json"):
        workspace.find()


def test_versions_of_other_models_are_not_removed(workspace: Workspace) -> None:
    for number in range(3):
        workspace.publish(f"run {number}", name="other")
    assert workspace.reasons() == {}


def test_nothing_is_removed_while_a_server_is_unreachable(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.publish_runs(2)
    text = workspace.environment_file.read_text()
    workspace.environment_file.write_text(text.replace(workspace.servers.url, "http://127.0.0.1:1"))
    with pytest.raises(BackendError):
        workspace.find()
    workspace.environment_file.write_text(text)
    monkeypatch.setenv("KUBECONFIG", "/missing")
    with pytest.raises(ClusterError):
        workspace.find()


def test_a_cluster_without_kubeflow_pipelines_has_only_the_runs_of_pods(workspace: Workspace) -> None:
    text = workspace.environment_file.read_text()
    workspace.environment_file.write_text(text.replace(f"endpoint: {workspace.servers.url}", "namespace: a"))
    workspace.servers.submit()
    workspace.publish_runs(2)
    assert workspace.reasons() == {"digits/1": None, "digits/2": "one of the last 1"}


def test_nothing_in_a_bucket_is_removed_without_its_environment(workspace: Workspace) -> None:
    workspace.publish_runs(2)
    workspace.upload(DATA[0])
    workspace.upload(CHECKPOINT)
    objects = workspace.find(environment=Environment(kind="local"))
    assert objects.pop("digits/2").keep_reason == "one of the last 1"
    assert objects.keys() == {"digits/1", DATA[0], CHECKPOINT}
    assert all("-e" in str(item.keep_reason) for item in objects.values())


def test_an_upload_is_not_removed_while_versions_runs_or_schedules_use_it_or_it_is_young(
    workspace: Workspace,
) -> None:
    for key in (*DATA[:6], CODE):
        workspace.upload(key)
    workspace.upload("uploads/data/other-tool")
    model = {"code": f"gs://b/models/{CODE}"}
    workspace.publish("run", name="other", data={"source": f"gs://b/models/{DATA[0]}"}, model=model)
    workspace.publish("removed", data={"source": f"gs://b/models/{DATA[1]}"})
    workspace.publish("last")
    workspace.servers.submit(source=f'{{"source": "gs://b/models/{DATA[2]}"}}')
    workspace.servers.submit("SUCCEEDED", source=f'{{"source": "gs://b/models/{DATA[3]}"}}')
    workspace.servers.schedule(source=f'{{"source": "gs://b/models/{DATA[4]}"}}')
    run = workspace.run("20260101-120000-aaaa")
    (run / "pipeline.yaml").write_text(f"source: gs://b/models/{DATA[5]}")
    assert {name: reason for name, reason in workspace.reasons().items() if name.startswith("uploads/")} == {
        DATA[0]: "version 1 of other uses it",
        DATA[1]: None,
        DATA[2]: "the run run-0 uses it",
        DATA[3]: None,
        DATA[4]: "the schedule digits uses it",
        DATA[5]: "the run 20260101-120000-aaaa uses it",
        CODE: "version 1 of other uses it",
    }
    assert all(item.keep_reason for item in workspace.find(later=2 * DAY).values())
    removed, _ = workspace.gc()
    assert removed & set(DATA) == {DATA[1], DATA[3]}
    assert "uploads/data/other-tool" in workspace.store.keys("uploads/data/")


def test_an_upload_that_is_used_after_find_is_not_removed(workspace: Workspace) -> None:
    for key in DATA[:2]:
        workspace.upload(key)
    run = workspace.servers.submit("FAILED", source=f'{{"source": "gs://b/models/{DATA[0]}"}}')
    objects = workspace.find()
    assert [objects[key].keep_reason for key in DATA[:2]] == [None, None]
    run["state"] = "RUNNING"  # retried
    assert workspace.store.touch(DATA[1])  # submitted again
    assert not objects[DATA[0]].remove()
    assert workspace.store.find(DATA[0])
    assert workspace.reasons(later=2 * DAY)[DATA[1]] == "younger than 30d"


def test_a_checkpoint_is_removed_when_no_training_can_resume_from_it(workspace: Workspace) -> None:
    model = "checkpoints/versions/000001/model.onnx"  # a model with the name checkpoints
    workspace.upload(CHECKPOINT)
    workspace.upload(model)
    assert workspace.reasons(later=2 * DAY)[CHECKPOINT] == "younger than 30d"
    reasons = workspace.reasons("retention.younger_than=1h", later=DAY / 2)
    assert reasons[CHECKPOINT] == "a run of the last 86400 s may use it"
    assert workspace.gc() == ({CHECKPOINT}, set())
    assert workspace.store.keys("checkpoints/") == [model]


def test_records_of_runs_are_removed_by_age_and_decisions_are_not(workspace: Workspace) -> None:
    objects = workspace.store
    record, decision = "digits/runs/r1.json", "digits/decisions/f1-0.json"
    for key in (record, decision, "other/runs/r1.json"):
        objects.create(key, b"{}")
    assert workspace.reasons(later=2 * DAY)[record] == "younger than 30d"
    assert workspace.reasons()[record] is None
    assert workspace.gc()[0] == {record}
    assert objects.keys("") == [decision, "other/runs/r1.json"]
