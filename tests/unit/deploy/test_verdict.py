"""When a candidate may stay."""

import pytest

from modelyard.components.deploy.settings import Rollout
from modelyard.components.deploy.traffic import Counts
from modelyard.components.deploy.verdict import judged, objection

ROLLOUT = Rollout(min_requests=100, max_error_rate=0.02, max_latency_ratio=2.0, latency_margin=0.01)


def answered(requests, seconds, failed=0):
    return Counts(client=requests, failed=failed, answers=requests, seconds=requests * seconds)


@pytest.mark.parametrize(
    ("candidate", "stable", "words"),
    [
        (answered(100, 0.01), answered(900, 0.01), None),
        (answered(3, 0.01, failed=2), Counts(), None),  # 2 of the 100 that it will be judged by are allowed
        (answered(3, 0.01, failed=3), Counts(), "3 of 3 requests failed, and at most 2.00%"),
        (answered(1000, 0.01, failed=20), Counts(), None),
        (answered(1000, 0.01, failed=21), Counts(), "21 of 1000"),
        (answered(100, 0.05), answered(900, 0.02), "takes 50.0 ms, 2.5 times stable's 20.0 ms"),
        (answered(100, 0.04), answered(900, 0.02), None),  # twice is allowed
        (answered(100, 0.009), answered(900, 0.0005), None),  # so little is always allowed
        (answered(99, 9.0), answered(900, 0.02), None),  # too few to say
        (answered(100, 9.0), Counts(), None),  # nothing to compare with
    ],
)
def test_objection(candidate, stable, words):
    found = objection(candidate, stable, ROLLOUT)
    assert (found is None) if words is None else (words in (found or ""))


def test_golden_requests_count_as_much_as_clients():
    def slow(client, golden):
        return Counts(client=client, golden=golden, answers=client + golden, seconds=100.0)

    assert objection(slow(60, 39), answered(900, 0.02), ROLLOUT) is None
    assert "takes 1000.0 ms" in (objection(slow(60, 40), answered(900, 0.02), ROLLOUT) or "")
    assert "60 client requests and 40 golden ones, 0 failed" in judged(slow(60, 40), Counts())
