"""Failures of runs, by `submit --wait` and `explain`; cancelled and retried runs."""

import time

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tests.cluster.kfp.conftest import NAMESPACE, wait_for_result
from tests.cluster.rollout.bucket import local_ip_address
from tests.failures import DATA_FILE, POD_FAILURES, serve_folder, write_code

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

PODS_DO_NOT_START = ("no-node", "no-image")
PODS_FAIL = ("data", "exception", "killed", "memory", "timeout")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder that the web server serves."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def url(folder):
    """The URL of the data file on this machine, for pods."""
    with serve_folder(folder, local_ip_address()) as url:
        yield url


@pytest.fixture(scope="module")
def results(user, url):
    """The result of each run; the runs are concurrent."""
    write_code(user.folder)
    processes = {}
    for name, case in POD_FAILURES.items():
        settings = [option for setting in case.settings for option in ("--set", setting.format(url=url))]
        options = ("--wait", "--anyway", *settings)  # without it, a step that fits no node is not submitted
        processes[name] = user.start(*user.submission(*options, model=f"{user.model}-{name}"))
    return {name: wait_for_result(process) for name, process in processes.items()}


@pytest.mark.parametrize("name", POD_FAILURES)
def test_failure_has_step_and_reason(results, name):
    case, failure = POD_FAILURES[name], results[name].json["failure"]
    assert (results[name].code, failure["kind"], failure["step"]) == (case.exit_code, case.kind, case.step), (
        failure
    )
    assert case.message in failure["message"]


@pytest.mark.parametrize("name", PODS_DO_NOT_START)
def test_run_whose_pod_does_not_start_is_cancelled(results, user, name):
    assert user.wait_until_ended(results[name].json["run"])["state"] == "cancelled"


def test_exit_task_logs_the_reason(results, user):
    logs = user("runs", "logs", results["data"].json["run"], "explain")
    assert DATA_FILE in logs.out


@pytest.mark.parametrize("name", PODS_FAIL)
def test_explain_has_the_reason_after_the_pods_are_deleted(results, user, kubectl, pods, name):
    case, run = POD_FAILURES[name], results[name].json["run"]
    before = user("explain", run, "--output", "json").json
    assert (before["state"], before["kind"], before["step"]) == ("failed", case.kind, case.step)
    assert case.message in before["text"]

    run_id = user.state(run)["id"]
    selector = ("-n", NAMESPACE, "-l", f"pipeline/runid={run_id}")
    kubectl("delete", "workflows", *selector)
    kubectl("wait", "--for=delete", "pods", *selector, "--timeout=60s")
    assert pods(run_id) == []
    after = user("explain", run, "--output", "json").json
    assert after == before


def test_show_with_wait_reports_a_cancelled_run(user, pods):
    started = user(*user.submission(model=f"{user.model}-cancelled")).json
    process = user.start("runs", "show", started["run"], "--wait", "--output", "json")
    while not pods(started["id"]):
        time.sleep(0.5)
    assert user("runs", "cancel", started["run"]).code == 0
    result = wait_for_result(process)
    assert (result.code, result.json["state"]) == (12, "cancelled"), result.err
    assert result.json["failure"]["kind"] == "CancelledError"
    assert user("explain", started["run"], "--output", "json").json["state"] == "cancelled"


def test_retried_run_succeeds_when_its_data_exist(results, user, folder):
    digits = load_digits()
    np.savez(folder / DATA_FILE, x=digits.images[..., None].astype("uint8"), y=digits.target)
    run = results["data"].json["run"]
    retried = user("runs", "retry", run)
    assert retried.code == 0, retried.err
    result = user("runs", "show", run, "--wait", "--output", "json")
    assert result.code == 0, result.out
    assert (result.json["state"], result.json["decision"]) == ("succeeded", "promote")
