import pytest

from modelyard.components.artifacts import Interval, Metric, Metrics
from modelyard.components.evaluate.gate import Gate, decide
from tests.published import accurate


def metrics(accuracy: float, champion: float | None = None) -> Metrics:
    if champion is None:
        return accurate(accuracy, accuracy, accuracy)
    other = Metric(value=champion, low=champion, high=champion, direction="higher")
    gain = round(accuracy - champion, 4)
    better = Interval(value=gain, low=gain, high=gain)
    return accurate(accuracy, accuracy, accuracy, champion=other, gain=better)


@pytest.mark.parametrize(
    ("accuracy", "other", "gate", "decision", "words"),
    [
        (0.1, None, None, "promote", "accuracy is 0.1000, and no gate is configured"),
        (0.1, 0.9, None, "promote", "no gate is configured"),
        (
            0.89,
            None,
            Gate(minimum={"accuracy": 0.9}),
            "reject",
            "accuracy 0.8900 is below the minimum of 0.9000",
        ),
        (0.89, 0.1, Gate(minimum={"accuracy": 0.9}), "reject", "below the minimum of 0.9000"),
        (
            0.9,
            None,
            Gate(minimum={"accuracy": 0.9}, min_improvement=0.5),
            "promote",
            "there is no champion to beat",
        ),
        (
            0.9722,
            0.9611,
            Gate(min_improvement=0.005),
            "promote",
            "accuracy 0.9722 beats version 3's 0.9611 by 0.0111, and at least 0.0050 was asked for",
        ),
        (0.9722, 0.9622, Gate(min_improvement=0.01), "promote", "by 0.0100"),
        (0.9722, 0.9721, Gate(), "promote", "any improvement is enough"),
        (0.9722, 0.9711, Gate(min_improvement=0.005), "hold", "by 0.0011, but at least 0.0050 was asked for"),
        (0.9722, 0.9722, Gate(), "hold", "accuracy 0.9722 does not beat version 3's 0.9722"),
        (0.9, 0.95, Gate(), "hold", "does not beat version 3's 0.9500"),
    ],
)
def test_the_decision_and_its_reason(accuracy, other, gate, decision, words) -> None:
    champion = None if other is None else 3
    found = decide(metrics(accuracy, other), gate, champion)
    assert found.decision == decision
    assert words in found.reason
    assert found.champion == champion


def test_lower_is_better() -> None:
    def rmse(value: float) -> Metric:
        return Metric(value=value, low=value, high=value, direction="lower")

    better = Interval(value=2.5, low=1, high=4)
    found = Metrics(
        problem="regression",
        rows=90,
        primary="rmse",
        values={"rmse": rmse(52.5), "r2": Metric(value=0.4, low=0.3, high=0.5, direction="higher")},
        champion=rmse(55),
        gain=better,
    )
    assert "rmse 52.50 beats version 3's 55.00 by 2.5000" in decide(found, Gate(), 3).reason
    assert decide(found, Gate(maximum={"rmse": 60}), 3).decision == "promote"
    assert decide(found, Gate(maximum={"rmse": 50}), 3).decision == "reject"
    assert decide(found, Gate(minimum={"r2": 0.5}), 3).decision == "reject"
    assert decide(found, Gate(min_improvement=3), 3).decision == "hold"
