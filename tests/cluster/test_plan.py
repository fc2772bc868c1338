"""`modelyard plan -e kind`: a probe in a real pod."""

import json

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def test_probe_runs_in_a_pod_like_training(modelyard, kubectl):
    result = modelyard("plan", "-e", "kind", "--probe", "--probe-seconds", "1", "--output", "json")
    assert result.code == 0, result.err
    plan = result.json
    assert plan["probe"]["synthetic"]
    assert plan["probe"]["device"] == "cpu:0"
    assert (plan["device"], plan["fit"]) == ("the pod", "fits")
    assert plan["train"]["total"]["value"] > 0
    pods = json.loads(
        kubectl(
            "get", "pods", "-n", "modelyard-runs", "-l", "app.kubernetes.io/component=probe", "-o", "json"
        )
    )
    assert [pod for pod in pods["items"] if "deletionTimestamp" not in pod["metadata"]] == []
