import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
)

from modelyard.components.artifacts import Schema
from modelyard.components.problems import get_description
from modelyard.components.problems.classification import PROBLEM, compute_gain


def schema(*names: str) -> Schema:
    return Schema(shape=(2,), dtype="uint8", problem="classification", names=names, splits={})


EQUAL_CLASSES = {"examples": [1, 1, 1]}


def measure(names, labels, scores, champions=None, training=EQUAL_CLASSES, compared=None):
    mask = np.ones(len(labels), np.bool_) if compared is None else compared
    return PROBLEM.measure(schema(*names), labels, scores, champions or {}, training, mask)


def test_metrics_match_scikit_learn() -> None:
    random = np.random.default_rng(3)
    labels = random.integers(0, 3, 500)
    probabilities = random.dirichlet((1, 1, 1), 500)
    predicted = probabilities.argmax(axis=1)
    scores = PROBLEM.compute_scores(probabilities, labels)
    metrics = measure("abc", labels, scores, training={"examples": [5, 9, 7]})
    by_class = precision_recall_fscore_support(labels, predicted)
    for name, expected in zip(("precision", "recall", "f1"), by_class[:3], strict=True):
        np.testing.assert_allclose([item.values[name].value for item in metrics.slices], expected)
    assert [item.examples for item in metrics.slices] == by_class[3].tolist()
    np.testing.assert_array_equal(metrics.details["confusion"], confusion_matrix(labels, predicted))
    for name, expected in (
        ("accuracy", accuracy_score(labels, predicted)),
        ("balanced_accuracy", balanced_accuracy_score(labels, predicted)),
        ("macro_f1", f1_score(labels, predicted, average="macro")),
        ("log_loss", log_loss(labels, probabilities)),
    ):
        result = metrics.values[name]
        assert result.value == pytest.approx(expected)
        assert result.low < result.value < result.high
    assert set(metrics.values) == set(get_description("classification").metrics)
    assert metrics.baseline == {"accuracy": pytest.approx((labels == 1).mean()), "balanced_accuracy": 1 / 3}


def test_a_class_without_test_examples_has_no_recall() -> None:
    labels = np.array([0, 0])
    scores = PROBLEM.compute_scores(np.array([[0.9, 0.1]] * 2), labels)
    empty = measure("ab", labels, scores).slices[1]
    assert (empty.examples, empty.values) == (0, {})


def test_intervals_of_a_perfect_score_are_not_empty() -> None:
    labels = np.arange(14) % 2
    scores = PROBLEM.compute_scores(np.eye(2)[labels], labels)
    result = measure("ab", labels, scores, {3: scores})
    assert (result.primary_metric.low, result.primary_metric.high) == (pytest.approx(0.7847, abs=1e-4), 1.0)
    for metric in (
        result.values["balanced_accuracy"],
        result.values["macro_f1"],
        result.slices[0].values["recall"],
    ):
        assert metric.low < metric.value == metric.high == 1
    assert result.gain.low < result.gain.value == 0 < result.gain.high
    for limits in (result.baseline_comparison, *result.comparisons):
        assert limits.low < limits.at_least < limits.value <= limits.high
    assert result.values["calibration_error"].high > result.values["calibration_error"].value == 0


def test_calibration_error_of_overconfident_predictions() -> None:
    labels = np.arange(200) % 2
    scores = PROBLEM.compute_scores(np.tile([0.9, 0.1], (200, 1)), labels)
    result = measure("ab", labels, scores).values["calibration_error"]
    assert result.value == pytest.approx(0.4)
    assert 0.3 < result.low < 0.4 < result.high < 0.5


def test_the_interval_of_the_gain_matches_a_bootstrap() -> None:
    random = np.random.default_rng(1)
    correct, others = random.random(400) < 0.9, random.random(400) < 0.8
    indices = random.integers(0, 400, (5000, 400))
    result, resampled = (
        compute_gain(correct, others),
        correct[indices].mean(axis=1) - others[indices].mean(axis=1),
    )
    np.testing.assert_allclose((result.low, result.high), np.quantile(resampled, (0.025, 0.975)), atol=0.008)


def test_each_metric_is_compared_with_its_best_champion() -> None:
    labels = np.array([0] * 40 + [1] * 10)
    predictions = {4: labels * 0, 3: labels * 0 + 1, 2: np.r_[[0] * 30, [1] * 20]}
    scores = {
        key: PROBLEM.compute_scores(np.eye(2)[predicted], labels) for key, predicted in predictions.items()
    }
    scores[2][-1, 0] = 0
    result = measure("ab", labels, scores[4], scores)
    assert result.champion.value == 0.8
    best = {(comparison.metric, comparison.slice): comparison.version for comparison in result.comparisons}
    assert best == {("accuracy", ""): 4, ("balanced_accuracy", ""): 2, ("recall", "a"): 4, ("recall", "b"): 3}


def test_examples_a_champion_was_trained_on_are_not_compared() -> None:
    """The champion overfits them; on the other examples it is as good as the candidate."""
    labels, unseen = np.array([0] * 40 + [1] * 40), np.arange(80) % 2 == 0
    correct = np.eye(2)[labels]
    candidate = PROBLEM.compute_scores(np.where(unseen[:, None], correct, correct[:, ::-1]), labels)
    result = measure("ab", labels, candidate, {3: PROBLEM.compute_scores(correct, labels)}, compared=unseen)
    assert (result.primary_metric.value, result.examples) == (0.5, 80)
    assert result.same_examples.examples == 40
    assert (
        result.same_examples.candidate["accuracy"]
        == result.same_examples.champion["accuracy"]
        == result.champion
    )
    assert result.gain.value == 0
    assert {comparison.value for comparison in result.comparisons} == {0}
    assert result.same_examples.champion.keys() == result.values.keys()


def test_golden_examples_cover_the_classes() -> None:
    labels, class_schema = np.array([0] * 90 + [2] * 3 + [1] * 2), schema("a", "b", "c")
    assert np.bincount(labels[PROBLEM.select_golden_examples(class_schema, labels, 16)]).tolist() == [
        11,
        2,
        3,
    ]
    assert PROBLEM.select_golden_examples(class_schema, labels[:5], 16).tolist() == [0, 1, 2, 3, 4]


def test_mistakes_are_the_most_confident_wrong_predictions() -> None:
    labels = np.array([0, 1, 0, 1])
    scores = PROBLEM.compute_scores(np.array([[0.4, 0.6], [0.1, 0.9], [0.05, 0.95], [0.7, 0.3]]), labels)
    result = PROBLEM.find_mistakes(schema("a", "b"), labels, scores, 2)
    assert [mistake.number for mistake in result] == [2, 3]
    assert (result[0].actual, result[0].predicted) == (("a", "0.050"), ("b", "0.950"))
