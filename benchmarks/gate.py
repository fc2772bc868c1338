"""Simulates how often a candidate passes the comparison with a champion: `make bench-gate`.

The script prints all rows of the first and the last table of docs/gate.md. A candidate is either equal to the
champion or worse by the margin; at most 5 % of the worse candidates may pass. `--draws 400` takes a tenth of
the time.
"""

import argparse
from collections.abc import Callable
from itertools import product

import numpy as np
from numpy.typing import NDArray

from modelyard.components.problems import intervals
from modelyard.components.problems.regression import compare

DRAWS = 4000
CLASSES = {
    "10 of equal size": (0.1,) * 10,
    "2 of equal size": (0.5, 0.5),
    "3, one with 80 % of the examples": (0.8, 0.1, 0.1),
}
ERRORS: dict[str, Callable[[np.random.Generator, tuple[int, int]], NDArray[np.float64]]] = {
    "normal": lambda random, size: random.normal(size=size),
    "Student's t, 5 degrees of freedom": lambda random, size: random.standard_t(5, size) / np.sqrt(5 / 3),
    "exponential": lambda random, size: random.exponential(size=size) - 1,
}
CORRELATION = 0.95  # correlation of the errors of the two models


def accuracy_pass_rate(
    sizes: tuple[int, ...], differing: float, difference: float, limit: float, draws: int
) -> float:
    """Return the share of comparisons of balanced accuracy whose one-sided limit is above `limit`.

    With one class, balanced accuracy is accuracy, and the recall of the class.

    Args:
        sizes: test examples of each class.
        differing: share of the examples that exactly one of the two models predicts correctly.
        difference: true difference, in each class.
        limit: minus the margin; 0 for superiority.
        draws: number of comparisons.
    """
    random, weights = np.random.default_rng(0), 1 / (len(sizes) * np.array(sizes, float))
    wins, losses = (differing + difference) / 2, (differing - difference) / 2
    comparisons = np.stack(
        [random.multinomial(size, (wins, losses, 1 - wins - losses), draws) for size in sizes], 1
    )
    limits = [
        intervals.paired_gain_interval(counts[:, 0], counts[:, 1], weights, intervals.ONE_SIDED)[0]
        for counts in comparisons
    ]
    return float((np.array(limits) > limit).mean())


def error_pass_rates(
    examples: int, kind: str, difference: float, limit: float, draws: int
) -> dict[str, float]:
    """Return the share of comparisons of RMSE and of MAE whose one-sided limit is at least `limit`.

    The true RMSE, or MAE, is 1 for the champion and 1 - `difference` for the candidate.
    """
    random, draw, passed = np.random.default_rng(0), ERRORS[kind], {}
    champion_errors, noise = draw(random, (draws, examples)), draw(random, (draws, examples))
    candidate_errors = CORRELATION * champion_errors + np.sqrt(1 - CORRELATION**2) * noise
    errors, noises = draw(random, (2, 10**6))
    sizes = np.abs(errors).mean(), np.abs(CORRELATION * errors + np.sqrt(1 - CORRELATION**2) * noises).mean()
    for index, (metric, champion_size, candidate_size) in enumerate((("rmse", 1.0, 1.0), ("mae", *sizes))):
        candidate = candidate_errors / candidate_size * (1 - difference)
        champion = champion_errors / champion_size
        pairs = zip(candidate, champion, strict=True)
        comparisons = [
            compare(np.zeros(examples), candidate_error, {1: champion_error})[index].at_least
            for candidate_error, champion_error in pairs
        ]
        passed[metric] = float((np.array(comparisons) >= limit).mean())
    return passed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=DRAWS)
    draws = parser.parse_args().draws
    print("| test examples | classes | differing | margin | passes when worse by the margin | when equal |")
    print("|---|---|---|---|---|---|")
    highest = highest_equal = 0.0
    for examples, (name, shares), differing, margin in product(
        (100, 360, 1000, 3000), CLASSES.items(), (0.03, 0.08, 0.2), (0.01, 0.02, 0.05)
    ):
        if differing > margin:
            sizes = tuple(round(share * examples) for share in shares)
            worse = accuracy_pass_rate(sizes, differing, -margin, -margin, draws)
            equal = accuracy_pass_rate(sizes, differing, 0, -margin, draws)
            better = accuracy_pass_rate(sizes, differing, 0, 0, draws)
            highest, highest_equal = max(highest, worse), max(highest_equal, better)
            print(
                f"| {examples:,} | {name} | {differing:.0%} | {margin} | {worse:.1%} | {equal:.0%} |",
                flush=True,
            )
    print(
        f"\nhighest when worse by the margin: {highest:.1%}; superiority, equal models: {highest_equal:.1%}\n"
    )
    print(
        "| test examples | errors | RMSE, worse by the margin | RMSE, equal "
        "| MAE, worse by the margin | MAE, equal |"
    )
    print("|---|---|---|---|---|---|")
    for examples, kind in product((30, 88, 300), ERRORS):
        worse_rates = error_pass_rates(examples, kind, -0.03, -0.03, draws)
        equal_rates = error_pass_rates(examples, kind, 0, -0.03, draws)
        cells = (f"{worse_rates[metric]:.1%} | {equal_rates[metric]:.0%}" for metric in ("rmse", "mae"))
        print(f"| {examples:,} | {kind} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
