"""The commands `submit` and `runs`."""

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modelyard.components.errors import DataError
from modelyard.pipelines.config.config import load
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.planning.plan import compute_plan_key, save_plan
from modelyard.pipelines.runners.kfp import runner
from modelyard.pipelines.steps import deploy_spec
from tests.integration.backend.conftest import IMAGES, Command, FakeKfp
from tests.integration.backend.plans import plan_of_an_hour


def test_a_dry_run_shows_the_differences_from_the_last_run(fake_kfp: FakeKfp, modelyard: Command) -> None:
    code, plan = modelyard("submit", "--dry-run", "--output", "json")
    assert code == 0
    assert (plan["pipeline"], plan["new_pipeline"], plan["new_version"]) == ("digits", True, True)
    assert plan["images"]["train"].startswith("registry.example/modelyard/train@sha256:")
    assert (fake_kfp.pipelines.pipelines, fake_kfp.runs.runs) == ({}, {})
    modelyard("submit", "--set", "environment.active_deadline=3600")
    _, plan = modelyard(
        "submit", "--dry-run", "--set", "environment.active_deadline=3600", "--output", "json"
    )
    assert (plan["new_pipeline"], plan["new_version"], plan["differences"]) == (False, False, [])
    image = "other@sha256:" + 64 * "1"
    changes = {
        "training.epochs=3": ("training.epochs", 20, 3),
        "environment.pipeline_root=gs://other/runs": ("pipeline_root", "gs://bucket/runs", "gs://other/runs"),
        "environment.runs.service_account=other": ("service_account", "modelyard-run", "other"),
        f"environment.images.train={image}": ("train.image", IMAGES["train"], image),
        "environment.steps.train.memory=3Gi": ("train.resources.resourceMemoryLimit", None, "3Gi"),
        "environment.steps.train.retries=2": ("train.retryPolicy.maxRetryCount", None, 2),
        "environment.steps.train.timeout=60": ("train.activeDeadlineSeconds", None, "60"),
        "environment.active_deadline=7200": ("activeDeadlineSeconds", 3600, 7200),
    }
    settings = [part for setting in changes for part in ("--set", setting)]
    _, plan = modelyard("submit", "--dry-run", *settings, "--output", "json")
    shown = {(item["key"], item["before"], item["after"]) for item in plan["differences"]}
    assert set(changes.values()) <= shown
    assert not any("command" in key for key, *_ in shown)
    assert "training.epochs: 20 -> 3" in modelyard("submit", "--dry-run", *settings)[1]


def test_a_new_version_is_a_difference(fake_kfp: FakeKfp, modelyard: Command) -> None:
    modelyard("submit")
    (version,) = fake_kfp.pipelines.versions.values()
    version.name = version.display_name = "sha256-0"  # another package
    assert list_differences(modelyard) == [("version", "sha256-0")]
    fake_kfp.pipelines.versions.clear()
    assert list_differences(modelyard) == [("version", "deleted")]


def list_differences(modelyard: Command) -> list[tuple[str, Any]]:
    _, plan = modelyard("submit", "--dry-run", "--output", "json")
    return [(item["key"], item["before"]) for item in plan["differences"]]


def test_a_run_over_the_budget_is_refused(
    fake_kfp: FakeKfp, modelyard: Command, environment: Environment, tmp_path: Path
) -> None:
    key = compute_plan_key(load(store=environment.model_store()), environment)
    save_plan(tmp_path / "home", key, plan_of_an_hour(usd=9.0))
    code, text = modelyard("submit", "--budget", "5")
    assert code == 13
    assert "train costs 9.00 USD, more than --budget 5 USD" in text
    assert fake_kfp.runs.runs == {}
    assert modelyard("submit", "--budget", "10")[0] == 0
    assert modelyard("submit", "--budget", "5", "--anyway")[0] == 0
    assert len(fake_kfp.runs.runs) == 2


def test_invalid_options_are_refused_first(fake_kfp: FakeKfp, modelyard: Command) -> None:
    """No file is read and no request is sent before."""
    messages = {
        ("missing.yaml", "-e", "local"): "environment.kind is local",
        ("missing.yaml", "--endpoint", "nonsense"): "--endpoint is 'nonsense'",
        ("--set", "environment.images.train=repo/train:latest"): "repo/train:latest",
        ("--force-after", "2d"): "--skip-unchanged",
    }
    for options, expected_message in messages.items():
        code, text = modelyard("submit", *options)
        assert code == 2
        assert expected_message in text
    assert fake_kfp.server.requests == []


def test_skip_unchanged_and_force_after_are_parameters(fake_kfp: FakeKfp, modelyard: Command) -> None:
    assert modelyard("submit", "--skip-unchanged", "--force-after", "2d")[0] == 0
    assert modelyard("submit")[0] == 0
    parameters = [run.runtime_config.parameters for run in fake_kfp.runs.runs.values()]
    assert [(values["skip_unchanged"], values["force_after"]) for values in parameters] == [
        (True, 172800),
        (False, 0),
    ]


def test_runs_are_listed_from_the_newest_and_shown(fake_kfp: FakeKfp, modelyard: Command) -> None:
    names = [modelyard("submit", "--output", "json")[1]["run"] for _ in range(3)]
    fake_kfp.server.page_limit = 2
    _, listed = modelyard("runs", "list", "--output", "json")
    assert [run["name"] for run in listed] == names[::-1]
    assert {run["state"] for run in listed} == {"pending"}
    _, listed = modelyard("runs", "list", "--limit", "1", "--model", "digits", "--output", "json")
    assert [run["name"] for run in listed] == names[-1:]
    code, text = modelyard("runs", "list", "--model", "cats")
    assert code == 7
    assert "There is no run of 'cats'" in text
    fake_kfp.runs.set_step(listed[0]["id"], "fingerprint", "Running")
    _, shown = modelyard("runs", "show", listed[0]["id"], "--output", "json")
    assert shown["steps"][0]["state"] == "running"
    code, text = modelyard("runs", "show", names[0])
    assert code == 0
    assert names[0] in text


def test_a_run_is_cancelled_and_retried(modelyard: Command) -> None:
    name = modelyard("submit", "--output", "json")[1]["run"]
    code, text = modelyard("runs", "retry", name)
    assert code == 2
    assert "is pending" in text
    assert modelyard("runs", "cancel", name)[0] == 0
    assert modelyard("runs", "show", name, "--output", "json")[1]["state"] == "cancelled"
    code, text = modelyard("runs", "cancel", name)
    assert code == 2
    assert "already ended (cancelled)" in text
    assert modelyard("runs", "retry", name)[0] == 0
    assert modelyard("runs", "show", name, "--output", "json")[1]["state"] == "running"


def test_logs_are_printed_by_step(fake_kfp: FakeKfp, modelyard: Command) -> None:
    run = modelyard("submit", "--output", "json")[1]
    code, text = modelyard("runs", "logs", run["run"])
    assert code == 0
    assert "There is no log" in text
    fake_kfp.runs.set_step(run["id"], "fingerprint", "Succeeded", 'time="x" level=info\nhashed the data\n')
    fake_kfp.runs.set_step(run["id"], "ingest", "Failed", "fetched\n")
    assert modelyard("runs", "logs", run["run"])[1] == "fingerprint:\nhashed the data\ningest:\nfetched\n"
    assert modelyard("runs", "logs", run["run"], "ingest")[1] == "fetched\n"
    expected = [
        {"step": "fingerprint", "lines": ["hashed the data"]},
        {"step": "ingest", "lines": ["fetched"]},
    ]
    assert modelyard("runs", "logs", run["run"], "--output", "json") == (0, expected)
    assert 'time="x"' in modelyard("runs", "logs", run["run"], "fingerprint", "--all")[1]
    code, text = modelyard("runs", "logs", run["run"], "fetch")
    assert code == 2
    assert "There is no step 'fetch'" in text
    fake_kfp.runs.set_state(run["id"], "FAILED")
    assert modelyard("runs", "logs", run["run"], "--follow")[1].endswith("ingest:\nfetched\n")


def test_show_with_wait_returns_the_exit_code_of_the_failure(fake_kfp: FakeKfp, modelyard: Command) -> None:
    name = modelyard("submit", "--output", "json")[1]["run"]
    (run,) = fake_kfp.runs.runs.values()
    spec = deploy_spec(run.runtime_config.parameters)
    changed = {**spec, "config": {**spec["config"], "unknown_key": 1}}
    run.runtime_config.parameters["deploy_spec"] = json.dumps(changed)
    fake_kfp.runs.fail_step(run.run_id, "ingest", DataError("No such file. Name one."), "fetching\n")
    fake_kfp.runs.set_state(run.run_id, "FAILED")
    code, summary = modelyard("runs", "show", name, "--wait", "--output", "json")
    assert (code, summary["failure"]["message"]) == (3, "No such file. Name one.")
    code, text = modelyard("runs", "show", name, "--wait")
    assert code == 3
    assert "last lines of ingest:" not in text
    assert "log of ingest: " in text
    assert "error: No such file. Name one." in text
    del run.runtime_config.parameters["deploy_spec"]  # as of a run that another client started
    code, text = modelyard("runs", "show", name, "--wait")
    assert code == 10
    assert "modelyard explain" in text


def test_ctrl_c_does_not_end_the_run(
    fake_kfp: FakeKfp, modelyard: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(
        runner, "time", SimpleNamespace(monotonic=time.monotonic, time=time.time, sleep=interrupt)
    )
    code, text = modelyard("submit", "--wait")
    (run,) = fake_kfp.runs.runs.values()
    assert code == 130
    assert f"Ctrl-C does not end the run {run.display_name}. Follow it: modelyard runs show" in text
    assert run.state == "PENDING"


def test_the_printed_command_has_the_same_endpoint_and_namespace(
    fake_kfp: FakeKfp, modelyard: Command, environment_file: str
) -> None:
    options = ("--endpoint", fake_kfp.server.url, "--namespace", "other")
    _, text = modelyard("submit", *options)
    (run,) = fake_kfp.runs.runs.values()
    assert f"modelyard runs show {run.display_name} -e {environment_file} --wait {' '.join(options)}" in text
