"""`modelyard run -e kind`: the digits with steps as pods, from data to a prediction over the node port."""

import json
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import httpx
import numpy as np
import pytest
from sklearn.datasets import load_digits

from tests.cluster.conftest import states
from tests.cluster.rollout.bucket import local_ip_address
from tests.failures import POD_FAILURES, serve_folder, write_code

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

RUNS, SERVING = "modelyard-runs", "modelyard-serving"
NETWORK = """import keras

def build(input_shape, classes):
    return keras.Sequential([
        keras.Input(input_shape), keras.layers.Flatten(), keras.layers.Dense(classes, activation="softmax"),
    ])
"""
QUICK = ("--set", "rollout.bake_seconds=1", "--set", "rollout.min_requests=20")
PROGRAM = str(Path(sys.executable).parent / "modelyard")


@pytest.fixture(scope="module")
def prefix():
    """The prefix of these tests in the bucket."""
    return uuid4().hex[:8]


@pytest.fixture(scope="module")
def storage_options(prefix):
    """Options with the model store and pipeline root of these tests."""
    keys = {"store": f"gs://modelyard/{prefix}/models", "pipeline_root": f"gs://modelyard/{prefix}/runs"}
    return [option for key, value in keys.items() for option in ("--set", f"environment.{key}={value}")]


@pytest.fixture(scope="module")
def first(modelyard, storage_options, kubectl):
    """The result of a run of the digits on a cluster without their servers."""
    kubectl("delete", "deployment", "-n", SERVING, "--ignore-not-found", "digits-stable", "digits-candidate")
    return modelyard("run", "-e", "kind", *storage_options, *QUICK, "--output", "json")


def pods(kubectl):
    """Return the pods of steps that are not terminating."""
    listed = json.loads(kubectl("get", "pods", "-n", RUNS, "-l", "modelyard.dev/step", "-o", "json"))["items"]
    return [pod for pod in listed if "deletionTimestamp" not in pod["metadata"]]


def test_digits_from_data_to_a_prediction_over_the_node_port(first, modelyard, kubectl, tmp_path):
    assert first.code == 0, first.err
    summary = first.json
    assert set(states(summary).values()) == {"succeeded"}
    assert (summary["decision"], summary["version"], summary["champion"]) == ("promote", 1, 1)
    assert summary["prediction"]["version"] == 1
    assert Path(summary["report"]).read_text().startswith("<!")
    assert pods(kubectl) == []

    image = tmp_path / "digit.npy"
    np.save(image, np.zeros((8, 8, 1), "uint8"))
    result = modelyard("predict", "digits", image, "-e", "kind", "--output", "json")
    assert (result.json["version"], len(result.json["predictions"])) == (1, 1)


def test_servers_run_the_built_image(first, kubectl, images):
    assert first.code == 0
    deployment = json.loads(kubectl("get", "deployment", "digits-stable", "-n", SERVING, "-o", "json"))
    (server,) = deployment["spec"]["template"]["spec"]["containers"]
    assert server["image"] == images["serve"]
    assert server["resources"]["limits"]["memory"] == "256Mi"


def test_repeated_run_is_cached_with_the_same_version(first, modelyard, storage_options):
    repeated = modelyard("run", "-e", "kind", *storage_options, *QUICK, "--output", "json").json
    cached = dict.fromkeys(("ingest", "preprocess", "train", "evaluate"), "cached")
    assert states(repeated) == {
        "fingerprint": "succeeded",
        **cached,
        "deploy": "succeeded",
        "explain": "succeeded",
    }
    assert (repeated["version"], repeated["decision"]) == (1, "promote")
    assert repeated["fingerprint"] == first.json["fingerprint"]


def test_candidate_that_fits_on_no_node_is_withdrawn_by_deploy(
    first, modelyard, storage_options, no_new_nodes, tmp_path
):
    """The message has the resources of the pod; stable keeps serving."""
    assert first.code == 0
    no_new_nodes(SERVING, "app.kubernetes.io/name=digits,modelyard.dev/track=candidate")
    large = ("--set", "environment.serving.cpu=64")
    result = modelyard("run", "-e", "kind", *storage_options, *QUICK, *large, "--output", "json")
    failure = result.json["failure"]
    assert (result.code, failure["kind"], failure["step"]) == (6, "DeployError", "deploy")
    assert "cannot be scheduled: it requests 64 cores and 256 MiB of memory" in failure["message"]
    assert failure["message"].endswith("stable serves version 1 as before.")
    np.save(tmp_path / "digit.npy", np.zeros((8, 8, 1), "uint8"))
    result = modelyard("predict", "digits", tmp_path / "digit.npy", "-e", "kind", "--output", "json")
    assert result.json["version"] == 1


def test_deploy_withdraws_its_candidate_when_its_pod_is_deleted(
    first, storage_options, kubectl, prefix, images, tmp_path
):
    """The store is empty; the steps before deploy are cached."""
    assert first.code == 0
    (tmp_path / "build").mkdir()
    (tmp_path / "build/images.json").write_text(json.dumps(images))
    options = (
        "--set",
        f"environment.store=gs://modelyard/{prefix}/empty",
        "--set",
        "rollout.bake_seconds=600",
    )
    run = subprocess.Popen(
        [PROGRAM, "run", "-e", "kind", *storage_options, *options], cwd=tmp_path, stderr=subprocess.DEVNULL
    )
    service = ("get", "service", "digits", "-n", SERVING, "-o", "jsonpath={.spec.selector}")
    while "track" in kubectl(*service):
        assert run.poll() is None
        time.sleep(0.5)
    kubectl("delete", "pod", "-n", RUNS, "-l", "modelyard.dev/step=deploy")
    assert run.wait(240) == 14
    assert "track" in kubectl(*service)
    deployments = kubectl("get", "deployment", "-n", SERVING, "-o", "name")
    assert "digits-candidate" not in deployments
    assert "digits-stable" in deployments


def test_missing_namespace_is_a_cluster_error(modelyard, storage_options, kubectl):
    namespace = ("--set", "environment.runs.namespace=missing")
    result = modelyard("run", "-e", "kind", *storage_options, *namespace, "--output", "json")
    failure = result.json["failure"]
    assert (result.code, failure["kind"]) == (9, "ClusterError")
    assert "missing" in failure["message"]
    assert pods(kubectl) == []


@pytest.fixture
def started_run(kubectl, storage_options, images, missing_image, tmp_path):
    """The process and the command of a run whose first pod exists and whose step train has no image."""
    (tmp_path / "build").mkdir()
    (tmp_path / "build/images.json").write_text(json.dumps(images))
    command = [
        PROGRAM,
        "run",
        "-e",
        "kind",
        *storage_options,
        "--set",
        "environment.steps.fingerprint.retries=1",
    ]
    command += ["--set", f"environment.images.train={missing_image}"]
    run = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    while not pods(kubectl):
        assert run.poll() is None
        time.sleep(0.2)
    yield run, command
    run.kill()
    run.wait()


def test_pod_of_a_killed_run_is_removed_by_the_next_run(kubectl, started_run, missing_image, tmp_path):
    run, command = started_run
    run.send_signal(signal.SIGSTOP)
    while not (remaining := pods(kubectl)):  # between two steps
        run.send_signal(signal.SIGCONT)
        time.sleep(0.1)
        run.send_signal(signal.SIGSTOP)
    run.kill()
    run.wait()
    (pod,) = remaining

    fails_early = ["--set", f"environment.images.fingerprint={missing_image}"]
    subprocess.run([*command, *fails_early], cwd=tmp_path, capture_output=True, check=False)
    assert pod["metadata"]["name"] not in [other["metadata"]["name"] for other in pods(kubectl)]


def test_step_is_retried_after_its_pod_is_lost(kubectl, started_run, tmp_path):
    run, _ = started_run
    kubectl("delete", "pod", "-n", RUNS, "--now", "-l", "modelyard.dev/step=fingerprint")
    assert run.wait(300) == 11  # there is no image for train
    (log,) = (tmp_path / ".modelyard/runs").glob("*/logs/fingerprint.log")
    assert "was deleted while it ran" in log.read_text()
    (summary,) = (tmp_path / ".modelyard/runs").glob("*/run.json")
    assert states(json.loads(summary.read_text()))["fingerprint"] == "succeeded"


@pytest.mark.soak  # a minute and a half; other tests check a lost pod and a killed training in less time
def test_training_resumes_from_its_checkpoint_after_its_pod_is_lost(
    storage_options, kubectl, images, tmp_path
):
    """The minimum accuracy rejects the model, so deploy does not run."""
    (tmp_path / "build").mkdir()
    (tmp_path / "build/images.json").write_text(json.dumps(images))
    keys = "training.epochs=100", "training.checkpoint_every=0.001", "gate.minimum.accuracy=1.0"
    settings = [
        option for setting in (*keys, "environment.steps.train.retries=1") for option in ("--set", setting)
    ]
    command = [PROGRAM, "run", "-e", "kind", *storage_options, *settings]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) as run:
        while "checkpoint after epoch" not in (log := train_log(tmp_path)):
            assert run.poll() is None
            time.sleep(0.2)
        kubectl("delete", "pod", "-n", RUNS, "--now", "-l", "modelyard.dev/step=train")
        assert run.wait(300) == 0
    before, message, after = train_log(tmp_path).partition("was deleted while it ran")
    assert message, log
    assert "resuming after epoch" not in before
    assert "resuming after epoch" in after


def train_log(folder):
    return "".join(path.read_text() for path in folder.glob(".modelyard/runs/*/logs/train.log"))


@pytest.mark.soak
def test_lost_artifacts_are_recreated(first, modelyard, storage_options, prefix, missing_image):
    assert first.code == 0
    bucket = "http://127.0.0.1:30443/storage/v1/b/modelyard/o"
    for item in httpx.get(bucket, params={"prefix": f"{prefix}/runs/"}).json()["items"]:
        httpx.delete(f"{bucket}/{quote(item['name'], safe='')}").raise_for_status()
    fails_early = ["--set", f"environment.images.preprocess={missing_image}"]
    repeated = modelyard("run", "-e", "kind", *storage_options, *fails_early, "--output", "json").json
    assert states(repeated)["ingest"] == "succeeded"


@pytest.mark.soak  # two runs; flow/test_uploads.py has uploads to an emulator, test_diabetes.py another run
def test_local_data_and_code_are_uploaded_and_give_the_same_fingerprint(modelyard, storage_options, tmp_path):
    """The minimum accuracy rejects the model, so deploy does not run."""
    digits = load_digits()
    (tmp_path / "networks").mkdir()
    (tmp_path / "networks/small.py").write_text(NETWORK)
    np.savez(tmp_path / "digits.npz", x=digits.images[..., None].astype("uint8"), y=digits.target)

    def run(folder):
        data = f"data={{kind: npz, source: {folder}/digits.npz}}"
        model = f"model={{build: 'small:build', code: {folder}/networks}}"
        settings = [
            option
            for setting in (data, model, "training.epochs=1", "gate.minimum.accuracy=1.0")
            for option in ("--set", setting)
        ]
        return modelyard("run", "-e", "kind", *storage_options, *settings, "--output", "json").json

    first = run(tmp_path)
    assert (first["state"], first["decision"]) == ("succeeded", "reject"), first["failure"]
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "networks", copy / "networks")
    shutil.copyfile(tmp_path / "digits.npz", copy / "digits.npz")  # with another modification time
    second = run(copy)
    assert second["fingerprint"] == first["fingerprint"]
    assert {states(second)[step] for step in ("ingest", "preprocess", "train", "evaluate")} == {"cached"}
    assert second["reused_runs"] == [first["run"]]


@pytest.fixture(scope="module")
def failed(first, modelyard, storage_options, tmp_path_factory):
    """The result of each failed run; the runs are concurrent and use the cache of the first run."""
    assert first.code == 0
    folder = tmp_path_factory.mktemp("data")
    write_code(folder)
    futures = {}
    with serve_folder(folder, local_ip_address()) as url, ThreadPoolExecutor(len(POD_FAILURES)) as pool:
        for name, case in POD_FAILURES.items():
            settings = (
                setting.format(url=url).replace("code: code", f"code: {folder}/code")
                for setting in case.settings
            )
            sizes = ("--set", "environment.start_timeout=20", "--set", "environment.steps.train.cpu=100m")
            command = (
                "run",
                "-e",
                "kind",
                *storage_options,
                *sizes,
                *(option for setting in settings for option in ("--set", setting)),
            )
            futures[name] = pool.submit(modelyard, *command, "--output", "json")
        return {name: future.result() for name, future in futures.items()}


@pytest.mark.parametrize("name", POD_FAILURES)
def test_failures_have_the_same_class_step_and_remedy_as_on_this_machine(failed, modelyard, name):
    case, result = POD_FAILURES[name], failed[name]
    failure = result.json["failure"]
    assert (result.code, failure["kind"], failure["step"]) == (case.exit_code, case.kind, case.step), failure
    assert case.message in failure["message"]
    explanation = modelyard("explain", result.json["run"], "-e", "kind", "--output", "json").json
    assert (explanation["state"], explanation["kind"], explanation["step"]) == (
        "failed",
        case.kind,
        case.step,
    )
    assert failure["message"] in explanation["text"]
