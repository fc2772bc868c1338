"""Local runs are removed with their artifacts and cache entries, unless another run uses them."""

import pytest

from modelyard.components import lifeline
from modelyard.pipelines.environments.environment import Environment
from tests.integration.gc.conftest import Workspace

OLD = [f"2026010{day}-120000-aaaa" for day in range(1, 6)]


def test_old_runs_are_removed_except_those_that_the_latest_run_uses(workspace: Workspace) -> None:
    remote = f"{OLD[0]}-digits"  # a run on Kubeflow Pipelines
    for name in (*OLD[:3], remote):
        workspace.run(name)
    workspace.run(OLD[3], uses=(OLD[1],))
    objects = workspace.find()
    assert objects[OLD[1]].keep_reason == f"{OLD[3]} uses its artifacts"
    assert objects[OLD[0]].size > 400
    assert workspace.gc() == ({OLD[0], remote, OLD[2]}, set())
    assert workspace.local_runs() == workspace.cached() == [OLD[1], OLD[3]]
    assert list((workspace.home / "removed").iterdir()) == []


def test_no_run_is_removed_while_another_run_is_running(workspace: Workspace) -> None:
    old, running = workspace.run(OLD[0]), workspace.run(OLD[1])
    with lifeline.hold(running / "lifeline"):
        assert workspace.reasons("retention.runs=0")[OLD[1]] == "it is running"
        assert workspace.gc() == (set(), {OLD[0]})
        assert (old / "artifacts/model.onnx").is_file()
        assert workspace.cached() == OLD[:2]
    assert workspace.gc() == ({OLD[0]}, set())


def test_files_of_a_killed_gc_are_removed(workspace: Workspace) -> None:
    (workspace.home / "removed" / OLD[0]).mkdir(parents=True)
    assert workspace.gc() == ({OLD[0]}, set())
    assert list((workspace.home / "removed").iterdir()) == []


def test_old_fetched_reports_and_tracebacks_are_removed(workspace: Workspace) -> None:
    home = workspace.home
    report, traceback = home / "reports/digits-000001", home / "errors/20260101-120000.txt"
    for folder in (report, traceback.parent):
        folder.mkdir(parents=True)
    (report / "report.html").write_text("<p>fine</p>")
    traceback.write_text("KeyError")
    assert workspace.gc(later=0) == (set(), set())
    assert workspace.find()[report.name].size == len("<p>fine</p>")
    assert workspace.gc() == ({report.name, traceback.name}, set())
    assert not report.exists()
    assert not traceback.exists()


def test_a_run_in_pods_is_removed_with_its_artifacts_in_the_bucket(workspace: Workspace) -> None:
    for name in OLD[:2]:
        workspace.run(name, pods=True)
    workspace.bucket.create("other-tool/model", b"")
    assert workspace.gc() == ({OLD[0]}, set())
    assert workspace.bucket.keys("") == [f"{OLD[1]}/train/model.onnx", "other-tool/model"]
    assert workspace.local_runs() == workspace.cached() == [OLD[1]]


@pytest.mark.parametrize("kind", ["local", "kubernetes"])
def test_a_run_in_pods_is_not_removed_without_its_environment(workspace: Workspace, kind: str) -> None:
    for name in OLD[:2]:
        workspace.run(name, pods=True)
    update = {"pipeline_root": "gs://other/runs"}
    other = Environment(kind="local") if kind == "local" else workspace.environment.model_copy(update=update)
    reason = str(workspace.find(environment=other)[OLD[0]].keep_reason)
    assert f"{workspace.environment.pipeline_root}/{OLD[0]}" in reason
    assert "-e" in reason
