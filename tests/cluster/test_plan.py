"""`modelyard plan -e kind`: a probe in a real pod, and what no node can take."""

import json

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def test_a_probe_runs_where_training_would(modelyard, kubectl):
    said = modelyard("plan", "-e", "kind", "--probe", "--probe-seconds", "1", "--output", "json")
    assert said.code == 0, said.err
    plan = said.json
    assert plan["probed"]["synthetic"]
    assert plan["probed"]["device"] == "cpu:0"
    assert plan["place"] == "the pod's memory"
    assert plan["fit"] == "fits"
    assert plan["duration"]["around"] > 0
    assert plan["train"]["value"] > plan["duration"]["around"]
    pods = json.loads(
        kubectl(
            "get", "pods", "-n", "modelyard-runs", "-l", "app.kubernetes.io/component=probe", "-o", "json"
        )
    )
    assert [one for one in pods["items"] if "deletionTimestamp" not in one["metadata"]] == []
