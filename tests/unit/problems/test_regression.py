import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from modelyard.components.artifacts import Golden, Schema
from modelyard.components.errors import DataError
from modelyard.components.evaluate.gate import Gate, decide
from modelyard.components.problems import get_description, regression
from modelyard.components.problems.regression import PROBLEM

SCHEMA = Schema(shape=(2,), dtype="float32", problem="regression", names=("price",), splits={})

MEAN = {"mean": 500.0}


def measure(targets, scores, champions=None, compared=None):
    mask = np.ones(len(targets), np.bool_) if compared is None else compared
    return PROBLEM.measure(SCHEMA, targets, scores, champions or {}, MEAN, mask)


def targets_and_predictions(count: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return targets around 500 and predictions with normally distributed noise."""
    random = np.random.default_rng(seed)
    targets = random.normal(500, 50, count).astype(np.float32)
    return targets, (targets + random.normal(0, noise, count))[:, None].astype(np.float32)


def test_metrics_match_scikit_learn() -> None:
    targets, predictions = targets_and_predictions(300, 20)
    result = measure(targets, PROBLEM.compute_scores(predictions, targets))
    for name, reference in (
        ("rmse", root_mean_squared_error),
        ("mae", mean_absolute_error),
        ("r2", r2_score),
    ):
        metric = result.values[name]
        assert metric.value == pytest.approx(reference(targets, predictions[:, 0]), rel=1e-5)
        assert metric.low < metric.value < metric.high
        assert metric.direction == get_description("regression").metrics[name]
    assert (result.primary, result.champion, result.gain) == ("rmse", None, None)
    assert (
        result.baseline_comparison.other
        == result.baseline["rmse"]
        == pytest.approx(np.std(targets), rel=0.01)
    )
    assert (
        0
        < result.baseline_comparison.low
        < result.baseline_comparison.at_least
        < result.baseline_comparison.value
    )


@pytest.mark.parametrize(("count", "noise"), [(2, 20), (12, 60), (84, 20), (84, 0)])
def test_one_sided_limit_of_a_gain_is_within_its_interval(count: int, noise: float) -> None:
    """The gate uses the same limit."""
    targets, predictions = targets_and_predictions(count, noise)
    other = PROBLEM.compute_scores(predictions + 3, targets)
    result = measure(targets, PROBLEM.compute_scores(predictions, targets), {3: other})
    for comparison in (result.baseline_comparison, *result.comparisons):
        assert comparison.low <= comparison.at_least <= comparison.value <= comparison.high
    rule, _ = decide(result, Gate(), 3).rules
    assert (rule.value, rule.limit) == (result.baseline_comparison.at_least, 0)


def test_gain_is_paired() -> None:
    """Two models with the same large errors; one is slightly better on every example."""
    targets, predictions = targets_and_predictions(200, 40)
    better = targets[:, None] + 0.95 * (predictions - targets[:, None])
    scores = [PROBLEM.compute_scores(predicted, targets) for predicted in (better, predictions)]
    result = measure(targets, scores[0], {3: scores[1]})
    assert result.champion
    assert result.gain
    assert result.champion.value > result.primary_metric.value
    assert result.gain.value == pytest.approx(result.champion.value - result.primary_metric.value)
    assert 0 < result.gain.low < result.gain.high  # although the intervals of both models overlap
    assert result.primary_metric.high > result.champion.low


def test_examples_a_champion_was_trained_on_are_not_compared() -> None:
    targets, predictions = targets_and_predictions(200, 40)
    unseen = np.arange(200) >= 100
    scores = PROBLEM.compute_scores(predictions, targets)
    champion = np.where(unseen, scores[:, 0] + 1, targets)[:, None]
    result = measure(targets, scores, {3: champion}, unseen)
    assert (result.examples, result.same_examples.examples) == (200, 100)
    assert result.same_examples.candidate["rmse"].value == pytest.approx(
        root_mean_squared_error(targets[100:], predictions[100:, 0]), rel=1e-5
    )
    assert result.same_examples.champion.keys() == result.values.keys()
    assert [comparison.metric for comparison in result.comparisons] == ["rmse", "mae"]
    for item in result.comparisons:
        value = (
            result.same_examples.champion[item.metric].value
            - result.same_examples.candidate[item.metric].value
        )
        assert item.value == pytest.approx(value)
        assert abs(value) < 1


def test_gains_over_equal_and_perfect_models_are_not_negative() -> None:
    targets, predictions = targets_and_predictions(12, 40)
    perfect = targets.astype(np.float64)[:, None]
    same = measure(
        targets,
        PROBLEM.compute_scores(predictions, targets),
        {3: PROBLEM.compute_scores(predictions, targets)},
    )
    assert [(comparison.value, comparison.at_least) for comparison in same.comparisons] == [
        (0, pytest.approx(0, abs=1e-5))
    ] * 2
    for item in measure(targets, perfect, {3: perfect}).comparisons:
        assert (item.value, item.at_least) == (0, 0)
    for item in measure(targets, perfect, {3: PROBLEM.compute_scores(predictions, targets)}).comparisons:
        assert 0 < item.at_least <= item.value


def test_bootstrap_intervals_match_theory_with_and_without_groups(monkeypatch) -> None:
    """Squared normal errors: the standard error of RMSE is RMSE / sqrt(2 n)."""
    targets, predictions = targets_and_predictions(4000, 20)
    expected = 2 * 1.96 * 20 / np.sqrt(2 * 4000)
    for groups in (10_000, 500):
        monkeypatch.setattr(regression, "MAX_GROUPS", groups)
        result = measure(targets, PROBLEM.compute_scores(predictions, targets)).primary_metric
        assert result.high - result.low == pytest.approx(expected, rel=0.15)


def test_invalid_targets_are_refused() -> None:
    good = np.arange(10, dtype=np.float32)
    with pytest.raises(DataError, match=r"Example 107 of all has the target nan"):
        PROBLEM.check_targets(SCHEMA, "all", 100, np.where(good == 7, np.nan, good))
    for targets, message in ((good * 0 + 3, "targets of test are 3.0000"), (good + 1e6, "float32")):
        with pytest.raises(DataError, match=message):
            PROBLEM.check_splits(SCHEMA, {"train": good, "validation": good, "test": targets})
    with pytest.raises(DataError, match="2 targets"):
        PROBLEM.check_schema(SCHEMA.model_copy(update={"names": ("a", "b")}))


def test_golden_examples_cover_the_range_of_targets() -> None:
    targets = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    golden = PROBLEM.select_golden_examples(SCHEMA, targets, 16)
    assert len(golden) == 16
    assert {int(targets.argmin()), int(targets.argmax())} <= set(golden.tolist())
    assert PROBLEM.select_golden_examples(SCHEMA, targets[:3], 16).tolist() == [0, 1, 2]


def test_difference_is_relative_to_the_golden_scale() -> None:
    golden = Golden(problem="regression", instances=[[0]], predictions=[[1000.0]], scale=[50.0])
    assert get_description("regression").difference(golden, 0, [1001.0]) == pytest.approx(0.02)
    assert not get_description("regression").difference(golden, 0, [float("nan")]) <= 1
    with pytest.raises(ValueError, match="argument"):
        get_description("regression").difference(golden, 0, [1.0, 2.0])


def test_a_prediction_is_formatted_as_a_number() -> None:
    assert str(get_description("regression").format_prediction(("price",), [1234.5678])) == "1235"


def test_the_spread_of_resampled_rmse_matches_theory() -> None:
    targets, predictions = targets_and_predictions(500, 20)
    error, resampled = PROBLEM.resample_error(targets, PROBLEM.compute_scores(predictions, targets), 200)
    assert error == pytest.approx(root_mean_squared_error(targets, predictions[:, 0]), rel=1e-5)
    assert resampled.shape == (200,)
    assert resampled.std() == pytest.approx(20 / np.sqrt(2 * 500), rel=0.25)


def test_mistakes_are_the_largest_errors() -> None:
    targets = np.array([1, 2, 3, 4], np.float32)
    scores = PROBLEM.compute_scores(np.array([[1], [12], [-7], [4]], np.float32), targets)
    result = PROBLEM.find_mistakes(SCHEMA, targets, scores, 3)
    assert [mistake.number for mistake in result] == [1, 2]
    assert (result[1].actual.text, *result[1].predicted) == ("3.0000", "-7.0000", "-10.00")


def test_r2_ignores_resamples_with_constant_targets() -> None:
    for rare in (1, 3):
        targets = np.repeat([0.1, 7.0], (40, rare)).astype(np.float32)
        predictions = PROBLEM.compute_scores((targets * 0.9)[:, None], targets)
        r2 = measure(targets, predictions).values["r2"]
        assert -10 < r2.low <= r2.value <= r2.high <= 1
