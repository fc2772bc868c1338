from typing import Any

import numpy as np
import pytest

from modelyard.components.artifacts import Comparison, Duplicates, Metric, Metrics, PairedMetrics, Slice
from modelyard.components.errors import EvaluateError
from modelyard.components.evaluate.gate import Gate, decide
from tests.versions import accuracy_metrics


def higher(value: float) -> Metric:
    return Metric(value=value, low=value, high=value, direction="higher")


def compare(metric: str, other: float, gain: float, at_least: float, **more: Any) -> Comparison:
    return Comparison(metric=metric, other=other, value=gain, low=gain, high=gain, at_least=at_least, **more)


def metrics(recalls: dict[str, tuple[int, int]], *comparisons: Comparison, **more: Any) -> Metrics:
    """Return metrics of classes; `recalls` has the correct and the total test examples of each class."""
    slices = tuple(
        Slice(name=name, examples=examples, values={"recall": higher(right / examples)} if examples else {})
        for name, (right, examples) in recalls.items()
    )
    examples = sum(item.examples for item in slices)
    balanced = float(np.mean([item.values["recall"].value for item in slices if item.examples]))
    limit = 1 / len(slices)
    base = accuracy_metrics(sum(right for right, _ in recalls.values()) / examples, 0, 1, examples=examples)
    constant = compare("balanced_accuracy", limit, balanced - limit, balanced - limit - 0.05)
    values = base.values | {"balanced_accuracy": higher(balanced)}
    changes = {
        "values": values,
        "baseline_comparison": constant,
        "slices": slices,
        "comparisons": comparisons,
    } | more
    return base.model_copy(update=changes)


RECALLS = {"good": (95, 100), "defective": (45, 50)}


@pytest.mark.parametrize(
    ("recalls", "gate", "decision", "expected"),
    [
        (RECALLS, None, "promote", "no gate is configured"),
        (RECALLS, Gate(), "promote", "no champion"),
        (
            {"good": (194, 194), "defective": (0, 6)},
            Gate(),
            "reject",
            "not better than the 0.5000 of a constant prediction",
        ),
        ({"a": (21, 21), "b": (0, 20), "c": (20, 20)}, Gate(), "reject", "recognizes no test example of b"),
        ({"a": (21, 21), "b": (0, 9), "c": (20, 20)}, Gate(), "promote", "no champion"),
        (
            RECALLS,
            Gate(minimum={"accuracy": 0.9}),
            "promote",
            "accuracy is 0.9333, which reaches the minimum of 0.9000",
        ),
        (
            RECALLS,
            Gate(minimum={"accuracy": 0.95}),
            "reject",
            "accuracy is 0.9333, below the minimum of 0.9500",
        ),
        (RECALLS, Gate(minimum={"recall": {"defective": 0.91}}), "reject", "recall of defective is 0.9000"),
        (RECALLS, Gate(minimum={"recall": 0.92}), "reject", "recall of defective is 0.9000"),
        (RECALLS, Gate(maximum={"log_loss": 0.05}), "reject", "log_loss is 0.1000, above the maximum"),
    ],
)
def test_rules_for_the_candidate_alone(recalls, gate, decision, expected) -> None:
    result = decide(metrics(recalls), gate, None)
    assert (result.decision, result.champion) == (decision, None)
    assert expected in result.reason
    assert any(not rule.passed for rule in result.rules) == (decision == "reject")


def test_every_rule_is_recorded_and_small_classes_are_named() -> None:
    gate = Gate(minimum={"accuracy": 0.9})
    comparison = compare("balanced_accuracy", 0.9, 0.01, -0.005, version=3)
    result = decide(
        metrics({"a": (90, 90), "b": (90, 90), "rare": (4, 4), "none": (0, 0)}, comparison), gate, 3
    )
    assert [(rule.value, rule.limit, rule.passed) for rule in result.rules] == [
        (pytest.approx(0.95), 0.25, True),
        (1.0, 0.0, True),
        (1.0, 0.9, True),
        (-0.005, -0.02, True),
    ]
    assert result.notes == ("fewer than 10 test examples, too few to judge: rare (4), none (0)",)


@pytest.mark.parametrize(
    ("gain", "at_least", "gate", "decision", "expected"),
    [
        (
            0.0,
            -0.015,
            Gate(),
            "promote",
            ["and 0.9250 for version 3, the champion", "is not worse by more than 0.0200 ("],
        ),
        (0.0, -0.04, Gate(), "hold", ["about 968 test examples", "150", "version 3 remains the champion"]),
        (-0.03, -0.04, Gate(), "hold", ["0.9250 for the candidate", "gain -0.0300, with", "least -0.0400"]),
        (-0.03, -0.04, Gate(), "hold", ["shows that the candidate is worse by more than 0.0200 ("]),
        (0.03, -0.01, Gate(), "promote", ["is not worse by more than 0.0200 ("]),
        (0.03, 0.01, Gate(), "promote", ["shows that the candidate is better ("]),
        (0.03, -0.04, Gate(), "hold", ["does not exclude that the candidate is worse by more than 0.0200"]),
        (-0.03, -0.04, Gate(comparison="superiority"), "hold", ["shows that the candidate is not better ("]),
        (0.0, -0.04, Gate(margin={"balanced_accuracy": 0.05}), "promote", []),
        (0.01, -0.01, Gate(comparison="superiority"), "hold", ["4 times in 5", "this much better"]),
        (0.03, 0.01, Gate(comparison="superiority"), "promote", ["shows that the candidate is better ("]),
        (0.03, 0.01, Gate(comparison="superiority", margin={"balanced_accuracy": 0.02}), "hold", []),
        (0.0, -0.01, Gate(margin={"recall": {"defective": 0.1}}), "hold", ["recall of defective"]),
    ],
)
def test_the_comparison_with_the_champion(gain, at_least, gate, decision, expected) -> None:
    balanced = compare("balanced_accuracy", 0.925 - gain, gain, at_least, version=3)
    recall = compare("recall", 0.9, 0.0, -0.2, version=3, slice="defective")
    result = decide(metrics(RECALLS, balanced, recall), gate, 3)
    assert (result.decision, result.champion) == (decision, 3)
    for text in expected:
        assert text in result.reason


@pytest.mark.parametrize(("other", "count"), [(0.9, 1), (0.8, 2)])
def test_the_reason_has_the_value_of_the_primary_metric_once(other: float, count: int) -> None:
    value = metrics(RECALLS).primary_metric.value
    pairs = (compare("accuracy", other, value - 0.9, 0.01, version=3),)
    balanced = compare("balanced_accuracy", 0.9, 0.025, 0.01, version=3)
    result = decide(metrics(RECALLS, balanced, *pairs), Gate(margin={"accuracy": 0.02}), 3)
    assert result.decision == "promote"
    assert result.reason.count("accuracy is ") == count, "twice only if the values differ"


def test_the_reason_mentions_once_that_the_champion_remains() -> None:
    gate = Gate(margin={"balanced_accuracy": 0.01, "recall": {"defective": 0.1}})
    balanced = compare("balanced_accuracy", 0.925, 0.0, -0.1, version=3)
    recall = compare("recall", 0.9, 0.0, -0.2, version=3, slice="defective")
    reason = decide(metrics(RECALLS, balanced, recall), gate, 3).reason
    assert reason.count("does not exclude") == 2
    assert reason.count("remains the champion") == 1
    assert reason.endswith("; version 3 remains the champion")


def test_a_rejection_has_the_values_of_candidate_and_champion() -> None:
    values = {name: {"accuracy": higher(value)} for name, value in (("candidate", 0.93), ("champion", 0.97))}
    balanced = compare("balanced_accuracy", 0.925, 0.0, -0.015, version=3)
    result = decide(
        metrics(RECALLS, balanced, same_examples=PairedMetrics(examples=150, **values)),
        Gate(minimum={"accuracy": 0.95}),
        3,
    )
    assert result.decision == "reject"
    assert "0.9300 for the candidate and 0.9700 for version 3, the champion, on the same 150" in result.reason


@pytest.mark.parametrize("gate", [Gate(), Gate(margin={"recall": {"defective": 0.1}})])
def test_a_candidate_that_cannot_be_compared_is_held(gate) -> None:
    leakage = {3: Duplicates(count=145, origins=("row 1 of all",))}
    comparisons = (compare("balanced_accuracy", 0.9, 0, 0, version=3),) if gate.margin else ()
    result = decide(metrics(RECALLS, *comparisons, trained_on=leakage), gate, 3, ("a note",))
    assert (result.decision, result.notes) == ("hold", ("a note",))
    assert result.rules[-1].value == (0 if gate.margin else 5)
    assert "cannot be compared" in result.reason


def test_small_test_sets_are_noted() -> None:
    assert decide(metrics({"a": (0, 0)} | RECALLS), Gate(), None).notes[0].endswith("too few to judge: a (0)")
    small = metrics({"a": (3, 3), "b": (3, 3)}).model_copy(update={"slices": ()})
    assert decide(small, Gate(), None).notes == ("only 6 test examples, too few to judge",)


def test_a_limit_for_an_unknown_class_is_an_error() -> None:
    with pytest.raises(EvaluateError, match=r"'defect'.*good, defective"):
        decide(metrics(RECALLS), Gate(minimum={"recall": {"defect": 0.5}}), None)


def test_lower_is_better_and_the_default_margin_is_relative() -> None:
    def lower(value: float) -> Metric:
        return Metric(value=value, low=value, high=value, direction="lower")

    def regression(rmse: float, at_least: float, constant: float = 20) -> Metrics:
        return Metrics(
            problem="regression",
            examples=90,
            primary="rmse",
            values={"rmse": lower(rmse), "r2": higher(0.4)},
            baseline_comparison=compare("rmse", 75, 75 - rmse, constant),
            comparisons=(compare("rmse", 55, 55 - rmse, at_least, version=3),),
        )

    assert decide(regression(55, -1.4), Gate(), 3).decision == "promote"  # 2 % of 75
    assert decide(regression(55, -1.6), Gate(), 3).decision == "hold"
    result = decide(regression(55, -1.4, constant=-1), Gate(), 3)
    assert (result.decision, result.rules[0].value, result.rules[0].limit) == ("reject", -1, 0)
    assert decide(regression(55, -1.4), Gate(maximum={"rmse": 50}), 3).decision == "reject"
    assert decide(regression(55, -1.4), Gate(minimum={"r2": 0.5}), 3).decision == "reject"
