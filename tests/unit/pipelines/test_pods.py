"""The pod of a step, and the artifacts of a task."""

import json
from pathlib import Path

import pytest

from modelyard.components.events import EventFile, Resumed
from modelyard.pipelines.compile.compiler import compile_package, parse_package
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.runners.pods import launcher
from modelyard.pipelines.runners.pods.execution import IN_PODS
from modelyard.pipelines.runners.pods.launcher import LaunchConfig, PodTask
from modelyard.pipelines.runners.pods.pod import create_step_pod

ENVIRONMENT = """
kind: kubernetes
store: gs://bucket/models
pipeline_root: gs://bucket/runs
images: {fingerprint: a/f, ingest: a/i, preprocess: a/p, train: a/t, train-cuda: a/c, evaluate: a/e,
  deploy: a/d, serve: a/s}
active_deadline: 1234
defaults: {cpu: 1, memory: 2Gi, ephemeral_storage: 3Gi}
steps: {train: {accelerator: {type: nvidia-l4, count: 2}, timeout: 60}}
"""


@pytest.fixture(scope="module")
def pods(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compiled")
    (folder / "environment.yaml").write_text(ENVIRONMENT)
    environment = load_environment(str(folder / "environment.yaml"), environ={})
    compiled = parse_package(compile_package(environment))
    return {step: create_step_pod(compiled, step, environment) for step in IN_PODS}


def test_a_pod_fetches_inputs_then_runs_the_step_then_uploads_outputs(pods):
    for step, pod in pods.items():
        first, second = pod["spec"]["initContainers"]
        (last,) = pod["spec"]["containers"]
        assert [container["name"] for container in (first, second, last)] == ["fetch", "step", "put"]
        assert second["image"] == ("a/c" if step == "train" else f"a/{step[0]}")
        assert first["image"] == last["image"] == "a/f"
        for container in (first, second, last):
            assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp", "/gcs"]  # noqa: S108
        assert pod["spec"]["restartPolicy"] == "Never"


def test_containers_comply_with_the_restricted_pod_security_standard(pods):
    for pod in pods.values():
        spec = pod["spec"]
        assert spec["securityContext"] == {
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        for container in [*spec["initContainers"], *spec["containers"]]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_only_deploy_gets_a_token_for_kubernetes(pods):
    tokens = {step: pod["spec"]["automountServiceAccountToken"] for step, pod in pods.items()}
    assert tokens == {step: step == "deploy" for step in IN_PODS}


def test_a_pod_has_the_settings_of_the_compiled_pipeline(pods):
    train, evaluate = (pods[step]["spec"]["initContainers"][1] for step in ("train", "evaluate"))
    assert train["resources"] == {
        "requests": {"cpu": "1", "memory": "2Gi"},
        "limits": {"memory": "2Gi", "nvidia.com/gpu": "2"},
    }
    assert evaluate["resources"]["limits"] == {"memory": "2Gi"}
    assert pods["train"]["spec"]["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    assert pods["train"]["spec"]["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert pods["train"]["spec"]["activeDeadlineSeconds"] == 60
    assert pods["evaluate"]["spec"]["activeDeadlineSeconds"] == 1234
    assert {"name": "MODELYARD_ACCELERATOR", "value": "gpu"} in train["env"]
    assert pods["train"]["spec"]["volumes"][0] == {"name": "tmp", "emptyDir": {"sizeLimit": "3Gi"}}


def test_outputs_of_a_task_are_in_the_bucket_of_the_run():
    launch = LaunchConfig(
        run="r1",
        namespace="runs",
        pods={},
        local_root="/home/me/artifacts",
        bucket_root="gs://bucket/runs/r1",
        endpoint=None,
        endpoint_in_pods=None,
        start_timeout=1,
        retries={},
    )
    folder = "/home/me/artifacts/pipeline-1/train"
    executor_input = {
        "inputs": {"artifacts": {"features": {"artifacts": [{"uri": "gs://bucket/runs/r0/x/features"}]}}},
        "outputs": {
            "outputFile": f"{folder}/executor_output.json",
            "parameters": {"epochs": {"outputFile": f"{folder}/epochs"}},
            "artifacts": {"model": {"artifacts": [{"uri": f"{folder}/model", "name": "model"}]}},
        },
    }
    before = json.dumps(executor_input)
    task = PodTask(executor_input, launch)
    assert json.dumps(executor_input) == before
    outputs = task.executor_input["outputs"]
    assert outputs["outputFile"] == "/gcs/bucket/runs/r1/pipeline-1/train/executor_output.json"
    assert outputs["parameters"]["epochs"]["outputFile"] == "/gcs/bucket/runs/r1/pipeline-1/train/epochs"
    (model,) = outputs["artifacts"]["model"]["artifacts"]
    assert model == {"uri": "gs://bucket/runs/r1/pipeline-1/train/model", "name": "model"}
    assert task.inputs == ["gs://bucket/runs/r0/x/features"]
    assert task.output_uri == "gs://bucket/runs/r1/pipeline-1/train"
    assert task.parameter_files == [Path(folder, "executor_output.json"), Path(folder, "epochs")]


def test_events_in_the_log_of_a_pod_are_recorded_in_the_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MODELYARD_EVENTS", str(tmp_path / "events.jsonl"))
    resumed = Resumed(step="train", epoch=1, epochs=2)
    for line in ("training on cpu:0", resumed.model_dump_json(), '{"event":"forged"}'):
        launcher._forward_line(line)
    assert capsys.readouterr().out == 'training on cpu:0\n{"event":"forged"}\n'
    assert EventFile(tmp_path / "events.jsonl").read() == [resumed]
