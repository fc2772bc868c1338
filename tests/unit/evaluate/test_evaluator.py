import json
from pathlib import Path

import numpy as np
import pytest
from kfp import dsl

from modelyard.components import artifacts
from modelyard.components.artifacts import (
    Decision,
    Duplicates,
    Golden,
    Identity,
    Metrics,
    Normalization,
    Schema,
    Signature,
    Statistics,
)
from modelyard.components.errors import DamagedError, DataError, EvaluateError, NotFoundError
from modelyard.components.evaluate.evaluator import Evaluation, evaluate
from modelyard.components.evaluate.gate import Gate
from modelyard.components.evaluate.spec import EvaluateSpec
from modelyard.components.problems import get_description
from modelyard.components.problems.base import build_signature
from modelyard.components.shards import ShardWriter
from modelyard.components.store.models import open_store
from modelyard.components.store.settings import Store
from tests.unit.evaluate.conftest import save_onnx
from tests.versions import publish


def run(
    inputs, model: Path, gate: Gate | None = None, champion: int = 0, earlier: tuple[int, ...] = (), **more
) -> Evaluation:
    root = inputs.root
    spec = EvaluateSpec(name="birds", gate=gate, store=Store(url=f"file://{root}/store"), **more)
    identity = Identity(run="r", data="d", champion=champion, earlier=earlier)
    history, report, evaluation = root / "history", root / "out" / "report.html", root / "evaluation"
    folders = (str(model), str(root / "features"), str(history))
    return evaluate(*folders, spec, identity, str(report), "gs://b/report", str(evaluation))


def publish_model(inputs, model: Path, metrics: Metrics, trained_on=()) -> int:
    """Publish a model; `trained_on` are the hashes of its training examples."""
    store = open_store(Store(url=f"file://{inputs.root}/store"))
    files = {name: model / name for name in ("model.onnx", "signature.json")}
    if len(trained_on):
        files["training_hashes.npy"] = inputs.root / "training_hashes.npy"
        np.save(files["training_hashes.npy"], np.array(trained_on, np.uint64))
    signature = artifacts.read(model / "signature.json", Signature)
    return publish(store, "birds", files, signature, metrics=metrics)


def test_a_perfect_model_without_a_champion_is_promoted(inputs) -> None:
    result = run(inputs, inputs.save_model("model", inputs.weights()), Gate(minimum={"accuracy": 0.9}))
    assert result.promote
    assert result.metrics.primary_metric.value == 1.0
    assert result.metrics.details["confusion"] == [[200, 0, 0], [0, 200, 0], [0, 0, 200]]
    folder = inputs.root / "evaluation"
    assert artifacts.read(folder / "metrics.json", Metrics) == result.metrics
    assert artifacts.read(folder / "decision.json", Decision) == result.decision
    page = (inputs.root / "out" / "report.html").read_text()
    assert "&lt;i&gt;emu&lt;/i&gt;" in page
    assert (folder / "report.html").read_text() == page


def test_golden_requests_have_raw_examples_and_predictions(inputs) -> None:
    run(inputs, inputs.save_model("model", inputs.weights()))
    golden = artifacts.read(inputs.root / "evaluation" / "golden.json", Golden)
    instances = np.array(golden.instances)
    assert instances.shape == (16, 2, 2, 3)
    logits = instances.reshape(16, 12) @ inputs.weights()
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(golden.predictions, expected, atol=1e-5)
    assert sorted(np.bincount(np.argmax(golden.predictions, axis=1))) == [5, 5, 6]


def test_the_champion_is_scored_on_the_same_examples(inputs) -> None:
    worse = inputs.save_model("worse", inputs.weights(swapped=True))
    first = run(inputs, worse)
    version = publish_model(inputs, worse, first.metrics)
    better = inputs.save_model("better", inputs.weights())
    result = run(inputs, better, Gate(comparison="superiority", margin={"accuracy": 0.5}), version)
    assert result.promote
    assert result.metrics.champion == first.metrics.primary_metric
    assert result.metrics.gain.value == pytest.approx(2 / 3)
    assert "0.3333 for version 1, the champion" in result.decision.reason
    assert "not recorded" in result.decision.notes[0]
    assert run(inputs, worse, Gate(), version).decision.decision == "reject"


def test_examples_that_champions_were_trained_on_are_counted_and_left_out(inputs) -> None:
    model = inputs.save_model("model", inputs.weights())
    first = run(inputs, model).metrics
    hashes = inputs.root / "evaluation" / "training_hashes.npy"
    assert np.load(hashes).tolist() == [1000, 1001, 1002]  # recorded in its version
    few_leaked, most_leaked, all_leaked = (
        publish_model(inputs, model, first, hashes) for hashes in ([3, 7, 9999], range(500), range(595))
    )
    result = run(
        inputs, model, Gate(), few_leaked, earlier=(most_leaked, publish_model(inputs, model, first, [5]))
    )
    assert (result.metrics.examples, result.metrics.same_examples.examples) == (600, 597)
    assert result.metrics.trained_on[few_leaked] == Duplicates(
        count=2, origins=("row 3 of all", "row 7 of all")
    )
    assert ["not compared" in note for note in result.decision.notes] == [False, True, False]
    assert run(inputs, model, Gate(), all_leaked).decision.decision == "hold"
    assert run(inputs, model, Gate(), most_leaked).metrics.same_examples.examples == 100
    with pytest.raises(DataError, match=r"2 of the test examples, such as row 3 of all, row 7 of all"):
        run(inputs, model, Gate(), few_leaked, fail_on_champion_leakage=True)
    run(inputs, model, Gate(), publish_model(inputs, model, first, [9999]), fail_on_champion_leakage=True)


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        ({"shape": (8, 8, 1)}, ("shape", "(8, 8, 1)", "(2, 2, 3)")),
        ({"names": ("a", "b", "c")}, ("classes", "a, b, c", "cat")),
        ({"names": ("a" * 300, "b", "c")}, ("classes", f"{'a' * 200}…", "cat")),
    ],
)
def test_a_champion_with_another_signature_is_refused(inputs, change, texts) -> None:
    model = inputs.save_model("model", inputs.weights())
    version = publish_model(
        inputs, inputs.save_model("other", inputs.weights(), **change), run(inputs, model).metrics
    )
    with pytest.raises(EvaluateError) as error:
        run(inputs, model, Gate(), version)
    for text in (*texts, "Version 1 of birds", "another name"):
        assert text in str(error.value)


def test_an_earlier_champion_that_cannot_be_compared_is_ignored(inputs, capsys) -> None:
    model = inputs.save_model("model", inputs.weights())
    version, damaged = (publish_model(inputs, model, run(inputs, model).metrics) for _ in range(2))
    file = inputs.root / "store" / "birds" / "versions" / f"{damaged:06d}" / "model.onnx"
    file.chmod(0o644)
    file.write_bytes(b"x")
    result = run(inputs, model, Gate(), version, (damaged, damaged + 1))
    assert {comparison.version for comparison in result.metrics.comparisons} == {version}
    log = capsys.readouterr().out
    for missing in (damaged, damaged + 1):
        assert f"version {missing}, an earlier champion, is not compared" in log
    with pytest.raises(DamagedError):
        run(inputs, model, Gate(), damaged)
    metrics = dsl.Metrics(uri=str(inputs.root / "a" / "metrics"))
    result.log_to_kfp(metrics, dsl.ClassificationMetrics(uri=str(inputs.root / "a" / "details")))
    assert (metrics.metadata["champion_accuracy"], metrics.metadata["gain"]) == (1.0, 0.0)


def test_a_model_with_another_input_shape_is_refused(inputs) -> None:
    model = inputs.save_model("model", inputs.weights())
    save_onnx(model / "model.onnx", np.zeros((16, 3), np.float32), "Softmax", (2, 2, 4))
    with pytest.raises(EvaluateError, match=r"does not take uint8 examples of shape \(2, 2, 3\)"):
        run(inputs, model)


def test_mistakes_are_reported_as_images_with_their_names(inputs) -> None:
    features = inputs.root / "features"
    with ShardWriter(features, "test", (6, 6, 3), "uint8") as writer:
        pixels = np.zeros((3, 6, 6, 3), np.uint8)
        writer.append(pixels, np.array([1, 2, 2]), ("dog/\udcff.png", "emu/2.png", "emu/3.png"))
    changes = {"shape": (6, 6, 3), "splits": {"test": 3}}
    schema = artifacts.read(features / "schema.json", Schema).model_copy(update=changes)
    artifacts.write(features / "schema.json", schema)
    inputs.write_example_hashes(3)
    matrix = np.zeros((108, 3), np.float32)
    run(inputs, inputs.save_model("model", matrix, shape=(6, 6, 3)))  # always predicts cat
    page = (inputs.root / "out" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    for texts in ("dog/?.png", "emu/2.png: ", "predicted 0.333 <b"):
        assert texts in page


def test_a_missing_champion_is_an_error(inputs) -> None:
    with pytest.raises(NotFoundError):
        run(inputs, inputs.save_model("model", inputs.weights()), champion=7)
    assert not (inputs.root / "evaluation").exists()


@pytest.mark.parametrize(
    ("classes", "factor", "activation", "texts"),
    [
        (4, 1, "Softmax", ("(256, 4)", "(256, 3)", "units")),
        (3, 1, "Identity", ("probabilities", "model.logits")),
        (3, np.nan, "Softmax", ("nan as value 0", "train again")),
    ],
)
def test_invalid_model_outputs_are_refused(inputs, classes, factor, activation, texts) -> None:
    model = inputs.save_model("model", inputs.weights(classes) * np.float32(factor), activation)
    with pytest.raises(EvaluateError) as error:
        run(inputs, model)
    for text in ("The candidate", *texts):
        assert text in str(error.value)
    assert not (inputs.root / "evaluation").exists()
    assert not (inputs.root / "out").exists()


def test_an_invalid_onnx_file_is_refused(inputs) -> None:
    model = inputs.save_model("model", inputs.weights())
    (model / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(EvaluateError, match=r"The candidate cannot be loaded.*model\.onnx.*Train it again"):
        run(inputs, model)


def test_metrics_are_logged_to_kfp_and_artifacts_have_files(inputs) -> None:
    result = run(inputs, inputs.save_model("model", inputs.weights()))
    metrics = dsl.Metrics(uri=str(inputs.root / "a" / "metrics"))
    details = dsl.ClassificationMetrics(uri=str(inputs.root / "a" / "details"))
    result.log_to_kfp(metrics, details)
    assert metrics.metadata["accuracy"] == 1.0
    assert details.metadata["confusionMatrix"]["rows"][0] == {"row": [200, 0, 0]}
    assert json.loads(Path(metrics.path).read_text()) == metrics.metadata
    assert len(json.loads(Path(details.path).read_text())["categories"]) == 3


def test_a_regression_is_compared_on_the_same_examples_and_reported_with_both_plots(inputs) -> None:
    """The target is the first value plus 1.5; the champion predicts half of the first value."""
    features = inputs.root / "features"
    examples = np.random.default_rng(0).integers(0, 200, (90, 2, 2, 3)).astype(np.uint8)
    for shard in features.glob("*.npy"):
        shard.unlink()
    with ShardWriter(features, "test", (2, 2, 3), "uint8") as writer:
        writer.append(examples, examples[:, 0, 0, 0] + 1.5)
    inputs.write_example_hashes(90)
    schema = Schema(
        shape=(2, 2, 3), dtype="uint8", problem="regression", names=("price",), splits={"test": 90}
    )
    artifacts.write(features / "schema.json", schema)
    targets = {"train": {"mean": 100.0, "standard_deviation": 58.0}}
    before = artifacts.read(features / "statistics.json", Statistics)
    statistics = before.model_copy(update={"targets": targets})
    artifacts.write(features / "statistics.json", statistics)
    artifacts.write(features / "normalization.json", Normalization(target_scale=(58.0,)))

    def save_regression(name: str, slope: float) -> Path:
        matrix = np.zeros((12, 1), np.float32)
        matrix[0, 0] = slope
        folder = inputs.save_model(name, matrix, "Identity")
        artifacts.write(folder / "signature.json", build_signature(schema, get_description("regression")))
        return folder

    worse = save_regression("worse", 0.5)
    first = run(inputs, worse, Gate(maximum={"rmse": 1000}))
    version = publish_model(inputs, worse, first.metrics)
    result = run(
        inputs, save_regression("better", 1.0), Gate(comparison="superiority", margin={"rmse": 10}), version
    )
    assert result.promote
    assert result.metrics.primary_metric.value == pytest.approx(1.5)
    assert result.metrics.champion == first.metrics.primary_metric
    assert result.metrics.gain.value == pytest.approx(first.metrics.primary_metric.value - 1.5)
    assert run(inputs, worse, Gate(), version).decision.decision == "reject"  # a constant is better
    assert run(inputs, worse, Gate(maximum={"rmse": 10})).decision.decision == "reject"
    golden = artifacts.read(inputs.root / "evaluation" / "golden.json", Golden)
    assert (len(golden.predictions), golden.scale) == (16, [58.0])
    html = (inputs.root / "out" / "report.html").read_text()
    assert html.count("<circle") >= 2 * 90
    assert "lower is better" in html
    metrics = dsl.Metrics(uri=str(inputs.root / "a" / "metrics"))
    details = dsl.ClassificationMetrics(uri=str(inputs.root / "a" / "details"))
    result.log_to_kfp(metrics, details)
    assert metrics.metadata["rmse"] == pytest.approx(1.5)
    assert details.metadata == {}
    assert Path(details.path).read_text() == "{}"  # without a file, the task is never cached
