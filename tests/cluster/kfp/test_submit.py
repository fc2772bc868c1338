"""`modelyard submit`: the digits from data to a prediction, and repeated with the cache."""

import time
from pathlib import Path

import numpy as np
import pytest

from tests.cluster.kfp.conftest import NAMESPACE, end, states

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

STEPS = ("fingerprint", "ingest", "preprocess", "train", "evaluate", "deploy", "explain")
MOST_PODS = 18  # two for each step; one for the root, the exit handler and each of the two conditions


def test_digits_from_data_to_a_prediction(first, user, tmp_path):
    assert first.code == 0, first.err
    summary = first.json
    assert states(summary) == dict.fromkeys(STEPS, "succeeded")
    assert (summary["decision"], summary["version"], summary["champion"]) == ("promote", 1, 1)
    assert summary["prediction"]["version"] == 1
    assert Path(summary["report"]).read_text().startswith("<!")

    picture = tmp_path / "digit.npy"
    np.save(picture, np.zeros((8, 8, 1), "uint8"))
    result = user("predict", user.model, picture, "--output", "json")
    assert (result.json["version"], len(result.json["predictions"])) == (1, 1)


def test_number_of_pods_of_a_run(first, user, pods):
    assert len(pods(user.state(first.json["run"])["id"])) == MOST_PODS


def test_explain_has_the_decision(first, user):
    explanation = user("explain", first.json["run"], "--output", "json").json
    assert (explanation["state"], explanation["model"]) == ("succeeded", user.model)
    assert "promote: accuracy" in explanation["text"]


def test_repeated_submission_is_cached_with_the_same_version(first, user):
    started = user(*user.submission()).json
    assert (started["new_pipeline"], started["new_version"], started["differences"]) == (False, False, [])
    logs = user.start("runs", "logs", started["run"], "--follow")
    again = user("runs", "show", started["run"], "--wait", "--output", "json")
    cached = dict.fromkeys(("ingest", "preprocess", "train", "evaluate"), "cached")
    assert states(again.json) == {**dict.fromkeys(STEPS, "succeeded"), **cached}
    assert (again.json["version"], again.json["decision"]) == (1, "promote")
    assert again.json["fingerprint"] == first.json["fingerprint"]
    followed = end(logs)
    assert followed.code == 0, followed.err
    assert "fingerprint:" in followed.out
    assert "promote: accuracy" in followed.out


def test_step_is_retried_after_its_pod_is_lost(first, user, kubectl, pods):
    """Argo retries every step in the default installation of Kubeflow Pipelines."""
    assert first.code == 0
    started = user(*user.submission()).json
    while not (lost := [pod for pod in pods(started["id"]) if at_work(pod, "fingerprint")]):
        time.sleep(0.3)
    kubectl("delete", "pod", "-n", NAMESPACE, lost[0]["metadata"]["name"], "--now")
    again = user("runs", "show", started["run"], "--wait", "--output", "json")
    assert (again.code, states(again.json)["fingerprint"]) == (0, "succeeded"), again.out
    assert (
        len([pod for pod in pods(started["id"]) if step_of(pod) == "fingerprint"]) == 1
    )  # the other is gone


def at_work(pod, step):
    return step_of(pod) == step and pod["status"].get("phase") in ("Pending", "Running")


def step_of(pod):
    return pod["metadata"]["labels"].get("modelyard.dev/step")
