"""`modelyard submit`: the digits from data to a prediction, and repeated with the cache."""

import time
from pathlib import Path

import numpy as np
import pytest

from tests.cluster.conftest import states
from tests.cluster.kfp.conftest import NAMESPACE, wait_for_result

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

STEPS = ("fingerprint", "ingest", "preprocess", "train", "evaluate", "deploy", "explain")
ALL_PODS = 18  # two for each step; one for the root, the exit handler and each of the two conditions


def test_digits_from_data_to_a_prediction(first, user, tmp_path):
    assert first.code == 0, first.err
    summary = first.json
    assert states(summary) == dict.fromkeys(STEPS, "succeeded")
    assert (summary["decision"], summary["version"], summary["champion"]) == ("promote", 1, 1)
    assert summary["prediction"]["version"] == 1
    assert Path(summary["report"]).read_text().startswith("<!")

    image = tmp_path / "digit.npy"
    np.save(image, np.zeros((8, 8, 1), "uint8"))
    result = user("predict", user.model, image, "--output", "json")
    assert (result.json["version"], len(result.json["predictions"])) == (1, 1)


def test_run_of_all_steps_has_18_pods(first, user, pods):
    assert len(pods(user.state(first.json["run"])["id"])) == ALL_PODS


def test_explain_has_the_decision(first, user):
    explanation = user("explain", first.json["run"], "--output", "json").json
    assert (explanation["state"], explanation["model"]) == ("succeeded", user.model)
    assert "promote: accuracy" in explanation["text"]


def test_repeated_submission_is_cached_with_the_same_version(first, user):
    started = user(*user.submission()).json
    assert (started["new_pipeline"], started["new_version"], started["differences"]) == (False, False, [])
    logs = user.start("runs", "logs", started["run"], "--follow")
    repeated = user("runs", "show", started["run"], "--wait", "--output", "json")
    cached = dict.fromkeys(("ingest", "preprocess", "train", "evaluate"), "cached")
    assert states(repeated.json) == {**dict.fromkeys(STEPS, "succeeded"), **cached}
    assert (repeated.json["version"], repeated.json["decision"]) == (1, "promote")
    assert repeated.json["fingerprint"] == first.json["fingerprint"]
    result = wait_for_result(logs)
    assert result.code == 0, result.err
    assert "fingerprint:" in result.out
    assert "promote: accuracy" in result.out


def test_step_is_retried_after_its_pod_is_lost(first, user, kubectl, pods):
    """Argo retries every step in the default installation of Kubeflow Pipelines."""
    assert first.code == 0
    started = user(*user.submission()).json
    while not (active := [pod for pod in pods(started["id"]) if is_active(pod, "fingerprint")]):
        time.sleep(0.3)
    kubectl("delete", "pod", "-n", NAMESPACE, active[0]["metadata"]["name"], "--now")
    repeated = user("runs", "show", started["run"], "--wait", "--output", "json")
    assert (repeated.code, states(repeated.json)["fingerprint"]) == (0, "succeeded"), repeated.out
    (_pod,) = (pod for pod in pods(started["id"]) if read_step(pod) == "fingerprint")


def is_active(pod, step):
    return read_step(pod) == step and pod["status"].get("phase") in ("Pending", "Running")


def read_step(pod):
    return pod["metadata"]["labels"].get("modelyard.dev/step")
