"""The rates of false promotions, at most 5 %, and of correct promotions, as in docs/gate.md."""

from math import sqrt

import numpy as np
import pytest

from benchmarks.gate import accuracy_pass_rate, error_pass_rates
from modelyard.components.artifacts import Comparison
from modelyard.components.evaluate.gate import examples_needed
from modelyard.components.problems import intervals


def limit(draws: int) -> float:
    """Return 5 % plus three standard errors of a number of draws."""
    return 0.05 + 3 * sqrt(0.05 * 0.95 / draws)


@pytest.mark.parametrize(
    ("sizes", "differing", "margin"),
    [((360,), 0.03, 0.02), ((36,) * 10, 0.08, 0.02), ((800, 100), 0.1, 0.05), ((36,), 0.2, 0.1)],
)
def test_false_promotion_rate_of_accuracy_and_recall_is_at_most_5_percent(sizes, differing, margin) -> None:
    """The true difference is minus the margin for non-inferiority, and zero for superiority."""
    assert accuracy_pass_rate(sizes, differing, -margin, -margin, 3000) < limit(3000)
    assert accuracy_pass_rate(sizes, differing, 0, 0, 3000) < limit(3000)


@pytest.mark.parametrize(
    ("examples", "kind", "draws"),
    [
        (30, "normal", 200),
        (88, "Student's t, 5 degrees of freedom", 100),
        *(
            pytest.param(examples, kind, 4000, marks=pytest.mark.soak)
            for examples in (30, 88, 300)
            for kind in ("normal", "Student's t, 5 degrees of freedom", "exponential")
        ),
    ],
)
def test_false_promotion_rate_of_rmse_and_mae_is_at_most_5_percent(examples, kind, draws) -> None:
    assert max(error_pass_rates(examples, kind, -0.03, -0.03, draws).values()) < limit(draws)


@pytest.mark.parametrize(("examples", "differing"), [(20, 0.05), (100, 0.03), (100, 0.08)])
def test_an_equal_model_passes_with_the_recommended_number_of_examples(examples, differing):
    """The test uses the median of the recommendations, which are higher with few examples."""
    shares, margin = (differing / 2, differing / 2, 1 - differing), 0.02
    recommended = []
    for better, worse, _ in np.random.default_rng(0).multinomial(examples, shares, 200):
        lower_limit = intervals.paired_gain_interval(
            np.array([better]), np.array([worse]), np.array([1 / examples]), intervals.ONE_SIDED
        )
        value = (better - worse) / examples
        comparison = Comparison(
            metric="accuracy", value=value, low=0, high=0, other=0, at_least=lower_limit[0]
        )
        recommended.append(examples_needed(comparison, examples, -margin, counts_examples=True) or examples)
    passed = accuracy_pass_rate((int(np.median(recommended)),), differing, 0, -margin, 1000)
    assert 0.72 < passed < 0.92
