"""The regression example with steps as pods, its rollout and predictions."""

from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "diabetes.yaml"
SERVING = "modelyard-serving"


def test_example_is_rolled_out_and_predicts_the_target(modelyard, kubectl, tmp_path):
    servers = "diabetes-stable", "diabetes-candidate"
    kubectl("delete", "deployment", "-n", SERVING, "--ignore-not-found", *servers)
    bucket = f"gs://modelyard/{uuid4().hex[:8]}"
    keys = {"store": f"{bucket}/models", "pipeline_root": f"{bucket}/runs"}
    storage_options = [
        option for key, value in keys.items() for option in ("--set", f"environment.{key}={value}")
    ]
    quick = ("--set", "rollout.bake_seconds=1", "--set", "rollout.min_requests=20")
    result = modelyard("run", EXAMPLE, "-e", "kind", *storage_options, *quick, "--output", "json")
    assert result.code == 0, result.err
    summary = result.json
    assert (summary["decision"], summary["version"], summary["evaluation"]["primary"]) == (
        "promote",
        1,
        "rmse",
    )
    np.save(tmp_path / "patients.npy", np.ones((3, 10), np.float32))
    output = modelyard("predict", "diabetes", tmp_path / "patients.npy", "-e", "kind", "--output", "json")
    assert [list(prediction["values"]) for prediction in output.json["predictions"]] == [["progression"]] * 3
    kubectl("delete", "deployment,service", "-n", SERVING, "--ignore-not-found", *servers, "diabetes")
