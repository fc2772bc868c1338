"""Failures of runs, by `submit --wait` and `explain`; cancelled and retried runs."""

import time

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tests.cluster.kfp.conftest import NAMESPACE, end
from tests.cluster.rollout.bucket import this_machine
from tests.failures import DATA_FILE, POD_FAILURES, serve_folder, write_code

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

CASES = POD_FAILURES
STUCK = ("no-node", "no-image")
GONE = ("data", "exception", "killed", "memory", "timeout")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder that the web server serves."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def url(folder):
    """The URL of the data file on this machine, for pods."""
    with serve_folder(folder, this_machine()) as url:
        yield url


@pytest.fixture(scope="module")
def ended(user, url):
    """The result of each run; the runs are concurrent."""
    write_code(user.folder)
    started = {}
    for name, case in CASES.items():
        settings = [part for setting in case.settings for part in ("--set", setting.format(url=url))]
        options = ("--wait", "--anyway", *settings)  # the plan would refuse what no node has room for
        started[name] = user.start(*user.submission(*options, model=f"{user.model}-{name}"))
    return {name: end(process) for name, process in started.items()}


@pytest.mark.parametrize("name", CASES)
def test_failure_has_step_and_reason(ended, name):
    case, failure = CASES[name], ended[name].json["failure"]
    assert (ended[name].code, failure["kind"], failure["step"]) == (case.exit_code, case.kind, case.step), (
        failure
    )
    assert case.message in failure["message"]


@pytest.mark.parametrize("name", STUCK)
def test_stuck_run_is_cancelled(ended, user, name):
    assert user.ended(ended[name].json["run"])["state"] == "cancelled"


def test_exit_task_logs_the_reason(ended, user):
    logs = user("runs", "logs", ended["data"].json["run"], "explain")
    assert DATA_FILE in logs.out


@pytest.mark.parametrize("name", GONE)
def test_explain_has_the_reason_after_the_pods_are_deleted(ended, user, kubectl, pods, name):
    case, run = CASES[name], ended[name].json["run"]
    before = user("explain", run, "--output", "json").json
    assert (before["state"], before["kind"], before["step"]) == ("failed", case.kind, case.step)
    assert case.message in before["text"]

    run_id = user.state(run)["id"]
    of_run = ("-n", NAMESPACE, "-l", f"pipeline/runid={run_id}")
    kubectl("delete", "workflows", *of_run)
    kubectl("wait", "--for=delete", "pods", *of_run, "--timeout=60s")
    assert pods(run_id) == []
    after = user("explain", run, "--output", "json").json
    assert after == before  # the exit task recorded it


def test_follower_reports_a_cancelled_run(user, pods):
    started = user(*user.submission(model=f"{user.model}-cancelled")).json
    follower = user.start("runs", "show", started["run"], "--wait", "--output", "json")
    while not pods(started["id"]):
        time.sleep(0.5)
    assert user("runs", "cancel", started["run"]).code == 0
    followed = end(follower)
    assert (followed.code, followed.json["state"]) == (12, "cancelled"), followed.err
    assert followed.json["failure"]["kind"] == "CancelledError"
    assert user("explain", started["run"], "--output", "json").json["state"] == "cancelled"


def test_retried_run_succeeds_when_its_data_exist(ended, user, folder):
    digits = load_digits()
    np.savez(folder / DATA_FILE, x=digits.images[..., None].astype("uint8"), y=digits.target)
    run = ended["data"].json["run"]
    retried = user("runs", "retry", run)
    assert retried.code == 0, retried.err
    followed = user("runs", "show", run, "--wait", "--output", "json")
    assert followed.code == 0, followed.out
    assert (followed.json["state"], followed.json["decision"]) == ("succeeded", "promote")
