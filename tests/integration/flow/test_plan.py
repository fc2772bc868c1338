"""`modelyard plan` as a user runs it, and what a run makes of the plan before it."""

import json
from typing import Any

import pytest

from modelyard.components.artifacts import History


def history(yard: Any) -> History:
    (path,) = (yard.folder / ".modelyard" / "runs").glob("*/artifacts/*/train/history/history.json")
    return History.model_validate_json(path.read_bytes())


def test_a_plan_without_a_probe_knows_what_can_be_counted(digits: tuple[Any, Any]) -> None:
    yard, run = digits
    plan = yard.json("plan", "--on", "l4", "--on", "tpu-v5p-slice", "--deadline", "0.0000001", code=13)
    assert plan["parameters"] == history(yard).parameters
    assert plan["rows"]["test"] == run["metrics"]["rows"]
    assert [one["accelerator"] for one in plan["offers"]] == ["nvidia-l4", "tpu-v5p-slice"]
    assert plan["offers"][0]["fit"] == "fits"
    assert "no TPU build" in plan["offers"][1]["refused"]
    assert plan["compute"]["lower_bound"] == []
    assert plan["train"]["value"] is None  # nobody probed, so nobody says how long
    assert {one["basis"] for one in plan["inputs"]} == {"measured", "given", "counted", "assumed", "unknown"}
    assert "nvidia-l4 x1" in plan["effort"][0]["what"]
    assert any("more than --deadline" in reason for reason in plan["refusals"])


def test_a_run_is_compared_with_its_plan(digits: tuple[Any, Any]) -> None:
    yard, _ = digits
    settings = ("training.epochs=3", "training.batch_size=64")
    said = yard.modelyard("plan", "--probe", "--probe-seconds", "1", settings=settings)
    assert said.returncode == 0, said.stderr
    assert " 3 epochs of " in said.stdout
    run = yard.json("run", settings=settings)
    folder = yard.folder / ".modelyard" / "runs" / run["run"]
    found = json.loads((folder / "plan.json").read_text())
    assert found["planned"] == found["plan"]["train"]["value"] > 0
    assert found["actual"] == next(one["seconds"] for one in run["steps"] if one["name"] == "train")
    assert (found["epochs"], found["resumed_after"]) == (3, 0)
    assert found["uncorrected"]  # of the same rows and epochs, so it counts for later plans
    cached = {one["name"]: one["cached"] for one in run["steps"]}
    assert cached["ingest"]
    assert cached["preprocess"]  # the plan has left them there
    planned, written = found["planned_written"]["model"], found["written"]["model"]
    assert written == pytest.approx(planned, rel=0.05)  # the probe exported the same files
    assert found["written"]["artifacts"] > written
    page = (folder / "report.html").read_text()
    assert "Plan against actual" in page
    assert "fits in this machine&#39;s memory" in page
    assert "<td>the exported model</td>" in page
    assert "what could go wrong" in page


GREEDY = """
import keras
import tensorflow as tf
from keras import layers


def take():
    raise MemoryError("there is no more")


class Greedy(layers.Layer):
    def call(self, x):
        return x + tf.stop_gradient(tf.ensure_shape(tf.numpy_function(take, [], tf.float32), ()))

    def compute_output_shape(self, shape):
        return shape


def build(input_shape, classes):
    x = keras.Input(input_shape)
    return keras.Model(x, layers.Dense(classes, activation="softmax")(layers.Flatten()(Greedy()(x))))
"""


@pytest.mark.soak  # a minute of processes; tests/unit/plan/test_too_large.py has the parts
def test_a_probe_without_enough_memory_is_an_answer(yard: Any) -> None:
    (yard.folder / "networks").mkdir()
    (yard.folder / "networks" / "greedy.py").write_text(GREEDY)
    text = "{name: greedy, data: {kind: digits}, model: {build: 'greedy:build', code: networks}}"
    (yard.folder / "greedy.yaml").write_text(text)
    plan = yard.json("plan", "greedy.yaml", "--probe", "--probe-seconds", "1", code=13)
    assert plan["fit"] == "does not fit"
    assert plan["parameters"] == 64 * 10 + 10
    assert plan["train"]["value"] is None
    (reason,) = plan["refusals"]
    assert "does not fit into the device's memory" in reason
    assert plan["too_large"].startswith(reason)
