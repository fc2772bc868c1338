from typing import Any

import numpy as np
import pytest

from modelyard.components.artifacts import Comparison, Metric, Metrics, Slice
from modelyard.components.errors import EvaluateError
from modelyard.components.evaluate.gate import Gate, decide
from modelyard.components.problems import intervals
from tests.published import accurate


def higher(value: float) -> Metric:
    return Metric(value=value, low=value, high=value, direction="higher")


def compared(metric: str, other: float, gain: float, at_least: float, **more: Any) -> Comparison:
    return Comparison(metric=metric, other=other, value=gain, low=gain, high=gain, at_least=at_least, **more)


def metrics(recalls: dict[str, tuple[int, int]], *comparisons: Comparison, **more: Any) -> Metrics:
    """Return metrics of classes: right test rows and test rows."""
    slices = tuple(
        Slice(name=name, rows=rows, values={"recall": higher(right / rows)} if rows else {})
        for name, (right, rows) in recalls.items()
    )
    rows = sum(one.rows for one in slices)
    balanced = float(np.mean([one.values["recall"].value for one in slices if one.rows]))
    limit = 1 / len(slices)
    found = accurate(sum(right for right, _ in recalls.values()) / rows, 0, 1, rows=rows)
    constant = compared("balanced_accuracy", limit, balanced - limit, balanced - limit - 0.05)
    values = found.values | {"balanced_accuracy": higher(balanced)}
    changes = {"values": values, "constant": constant, "slices": slices, "comparisons": comparisons} | more
    return found.model_copy(update=changes)


GOOD = {"good": (95, 100), "defective": (45, 50)}


@pytest.mark.parametrize(
    ("recalls", "gate", "decision", "words"),
    [
        (GOOD, None, "promote", "no gate is configured"),
        (GOOD, Gate(), "promote", "no champion"),
        (
            {"good": (194, 194), "defective": (0, 6)},
            Gate(),
            "reject",
            "not better than a constant prediction's 0.5000",
        ),
        ({"a": (21, 21), "b": (0, 20), "c": (20, 20)}, Gate(), "reject", "no test row of b is recognised"),
        ({"a": (21, 21), "b": (0, 9), "c": (20, 20)}, Gate(), "promote", "no champion"),
        (GOOD, Gate(minimum={"accuracy": 0.9}), "promote", "accuracy 0.9333 reaches the minimum of 0.9000"),
        (GOOD, Gate(minimum={"accuracy": 0.95}), "reject", "accuracy 0.9333 is below the minimum of 0.9500"),
        (GOOD, Gate(minimum={"recall": {"defective": 0.91}}), "reject", "recall of defective 0.9000"),
        (GOOD, Gate(minimum={"recall": 0.92}), "reject", "recall of defective 0.9000"),
        (GOOD, Gate(maximum={"log_loss": 0.05}), "reject", "log_loss 0.1000 is above the maximum"),
    ],
)
def test_what_the_candidate_must_reach_by_itself(recalls, gate, decision, words) -> None:
    found = decide(metrics(recalls), gate, None)
    assert (found.decision, found.champion) == (decision, None)
    assert words in found.reason
    assert any(not rule.passed for rule in found.rules) == (decision == "reject")


def test_every_rule_is_a_record_and_classes_with_few_rows_are_named() -> None:
    gate = Gate(minimum={"accuracy": 0.9})
    one = compared("balanced_accuracy", 0.9, 0.01, -0.005, version=3)
    found = decide(metrics({"a": (90, 90), "b": (90, 90), "rare": (4, 4), "none": (0, 0)}, one), gate, 3)
    assert [(rule.value, rule.limit, rule.passed) for rule in found.rules] == [
        (pytest.approx(0.95), 0.25, True),
        (1.0, 0.0, True),
        (1.0, 0.9, True),
        (-0.005, -0.02, True),
    ]
    assert found.notes == ("fewer than 10 test rows, too few to judge: rare (4), none (0)",)


@pytest.mark.parametrize(
    ("gain", "at_least", "gate", "decision", "words"),
    [
        (0.0, -0.015, Gate(), "promote", ["not worse by more than 0.0200 than version 3's 0.9250"]),
        (0.0, -0.04, Gate(), "hold", ["about 1,372 test rows, there are 150", "the champion stays"]),
        (-0.03, -0.04, Gate(), "hold", ["gain -0.0300, at least -0.0400"]),
        (0.0, -0.04, Gate(margin={"balanced_accuracy": 0.05}), "promote", []),
        (0.01, -0.01, Gate(comparison="superiority"), "hold", ["4 times in 5", "this much better"]),
        (0.03, 0.01, Gate(comparison="superiority"), "promote", ["better by more than 0.0000"]),
        (0.03, 0.01, Gate(comparison="superiority", margin={"balanced_accuracy": 0.02}), "hold", []),
        (0.0, -0.01, Gate(margin={"recall": {"defective": 0.1}}), "hold", ["recall of defective"]),
    ],
)
def test_the_comparison_with_the_champion(gain, at_least, gate, decision, words) -> None:
    ours = compared("balanced_accuracy", 0.925 - gain, gain, at_least, version=3)
    recall = compared("recall", 0.9, 0.0, -0.2, version=3, slice="defective")
    found = decide(metrics(GOOD, ours, recall), gate, 3)
    assert (found.decision, found.champion) == (decision, 3)
    for word in words:
        assert word.replace("0.9250", f"{0.925 - gain:.4f}") in found.reason


def test_a_class_that_is_not_there() -> None:
    with pytest.raises(EvaluateError, match=r"'defect'.*good, defective"):
        decide(metrics(GOOD), Gate(minimum={"recall": {"defect": 0.5}}), None)


def test_lower_is_better_and_the_default_margin_is_relative() -> None:
    def lower(value: float) -> Metric:
        return Metric(value=value, low=value, high=value, direction="lower")

    def found(rmse: float, at_least: float, constant: float = 20) -> Metrics:
        return Metrics(
            problem="regression",
            rows=90,
            primary="rmse",
            values={"rmse": lower(rmse), "r2": higher(0.4)},
            constant=compared("rmse", 75, 75 - rmse, constant),
            comparisons=(compared("rmse", 55, 55 - rmse, at_least, version=3),),
        )

    assert decide(found(55, -1.4), Gate(), 3).decision == "promote"  # 2 % of 75
    assert decide(found(55, -1.6), Gate(), 3).decision == "hold"
    assert decide(found(55, -1.4, constant=-1), Gate(), 3).decision == "reject"
    assert decide(found(55, -1.4), Gate(maximum={"rmse": 50}), 3).decision == "reject"
    assert decide(found(55, -1.4), Gate(minimum={"r2": 0.5}), 3).decision == "reject"


@pytest.mark.parametrize(
    ("sizes", "differing", "margin"),
    [((360,), 0.03, 0.02), ((36,) * 10, 0.08, 0.02), ((800, 100), 0.1, 0.05)],
)
def test_the_rate_of_false_promotions(sizes, differing, margin) -> None:
    """At a true difference of minus the margin, and for superiority at none, at most 5 % pass."""
    random = np.random.default_rng(0)
    weights = 1 / (len(sizes) * np.array(sizes, float))

    def rate(difference: float, limit: float) -> float:
        lost, won = (differing - difference) / 2, (differing + difference) / 2
        draws = np.stack([random.multinomial(size, (won, lost, 1 - won - lost), 3000) for size in sizes], 1)
        at_least = [
            intervals.paired_gain(one[:, 0], one[:, 1], weights, intervals.ONE_SIDED)[0] for one in draws
        ]
        return float((np.array(at_least) > limit).mean())

    assert rate(-margin, -margin) < 0.06  # 0.05 and three standard errors of 3,000 draws
    assert rate(0, 0) < 0.06
