import pytest

from modelyard.components.artifacts import Interval, Metrics
from modelyard.components.evaluate.gate import Gate, decide


def metrics(accuracy: float, champion: float | None = None) -> Metrics:
    def at(value: float) -> Interval:
        return Interval(value=value, low=value, high=value)

    return Metrics(
        rows=10_000,
        accuracy=at(accuracy),
        loss=0.1,
        per_class=(),
        confusion=(),
        champion_accuracy=None if champion is None else at(champion),
        gain=None if champion is None else at(round(accuracy - champion, 4)),
    )


@pytest.mark.parametrize(
    ("accuracy", "other", "gate", "decision", "words"),
    [
        (0.1, None, None, "promote", "accuracy is 0.1000, and no gate is configured"),
        (0.1, 0.9, None, "promote", "no gate is configured"),
        (0.89, None, Gate(floor=0.9), "reject", "accuracy 0.8900 is below the floor of 0.9000"),
        (0.89, 0.1, Gate(floor=0.9), "reject", "below the floor of 0.9000"),
        (0.9, None, Gate(floor=0.9, min_gain=0.5), "promote", "there is no champion to beat"),
        (
            0.9722,
            0.9611,
            Gate(min_gain=0.005),
            "promote",
            "accuracy 0.9722 beats version 3's 0.9611 by 0.0111, and at least 0.0050 was asked for",
        ),
        (0.9722, 0.9622, Gate(min_gain=0.01), "promote", "by 0.0100"),
        (0.9722, 0.9721, Gate(), "promote", "any gain is enough"),
        (0.9722, 0.9711, Gate(min_gain=0.005), "hold", "by 0.0011, but at least 0.0050 was asked for"),
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
