import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support

from modelyard.components.artifacts import Schema
from modelyard.components.problems.classification import PROBLEM, Details, accuracy, gain


def schema(*names: str) -> Schema:
    return Schema(shape=(2,), dtype="uint8", problem="classification", names=names, splits={})


def test_metrics_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(3)
    labels = random.integers(0, 3, 500)
    probabilities = random.dirichlet((1, 1, 1), 500)
    predicted = probabilities.argmax(axis=1)
    scores = PROBLEM.scores(probabilities, labels)
    metrics = PROBLEM.measure(schema("a", "b", "c"), labels, scores, None)
    found = Details.model_validate(metrics.details)
    precision, recall, f1, rows = precision_recall_fscore_support(labels, predicted)
    np.testing.assert_allclose([one.precision for one in found.per_class], precision)
    np.testing.assert_allclose([one.recall for one in found.per_class], recall)
    np.testing.assert_allclose([one.f1 for one in found.per_class], f1)
    assert [one.rows for one in found.per_class] == rows.tolist()
    np.testing.assert_array_equal(found.confusion, confusion_matrix(labels, predicted))
    assert metrics.values["loss"].value == pytest.approx(log_loss(labels, probabilities))


def test_a_metric_without_a_denominator_is_none() -> None:
    labels = np.array([0, 0])
    scores = PROBLEM.scores(np.array([[0.9, 0.1]] * 2), labels)
    empty = Details.model_validate(PROBLEM.measure(schema("a", "b"), labels, scores, None).details).per_class[
        1
    ]
    assert (empty.rows, empty.precision, empty.recall, empty.f1) == (0, None, None, None)


def test_the_intervals_agree_with_resampling_the_rows() -> None:
    random = np.random.default_rng(1)
    right, others = random.random(400) < 0.9, random.random(400) < 0.8
    rows = random.integers(0, 400, (5000, 400))
    for found, drawn in (
        (accuracy(right), right[rows].mean(axis=1)),
        (gain(right, others), right[rows].mean(axis=1) - others[rows].mean(axis=1)),
    ):
        np.testing.assert_allclose((found.low, found.high), np.quantile(drawn, (0.025, 0.975)), atol=0.006)
        assert found.low < found.value < found.high


def test_golden_rows_are_spread_over_the_classes() -> None:
    labels, three = np.array([0] * 90 + [2] * 3 + [1] * 2), schema("a", "b", "c")
    assert np.bincount(labels[PROBLEM.golden_rows(three, labels, 16)]).tolist() == [11, 2, 3]
    assert PROBLEM.golden_rows(three, labels[:5], 16).tolist() == [0, 1, 2, 3, 4]
