"""The gate: decides from the metrics of a candidate whether it is promoted.

Each rule becomes a record with its value, its limit and whether it passed. If a rule about the candidate
alone fails, the candidate is rejected; if a comparison with a champion fails, it is held.
"""

import math
from typing import Literal, NamedTuple

from pydantic import Field

from modelyard.components.artifacts import Comparison, Decision, Metrics, Rule, Slice, format_number
from modelyard.components.errors import EvaluateError, pluralize, summarize_names
from modelyard.components.problems import get_description
from modelyard.components.settings import Settings

MIN_EXAMPLES = 10
"""Minimum number of test examples of a class for the rule about its recall."""
ONE_SIDED, POWER = 1.645, 0.842
"""Normal quantiles: 95 % for the one-sided limit, 80 % for the rate at which an equal model passes."""
RARE_EVENT_CORRECTION = 1.3
"""Number of examples by which the lower limit of `intervals.paired_gain_interval` is below a normal limit."""

Limits = dict[str, float | dict[str, float]]


class Gate(Settings):
    """The rules for promotion.

    By default, a candidate must be better than a constant prediction, have a recall above 0 for classes with
    10 or more test examples, and not be worse than the best of the last five champions by more than a margin.
    """

    minimum: Limits = Field(
        default_factory=dict,
        description="Minimum values, on the test examples, of metrics for which higher is better, such as "
        "`{accuracy: 0.9}`. A candidate below a minimum is rejected, with or without a champion. For "
        "classes: `{recall: {defective: 0.8}}`, or `{recall: 0.5}` for each class.",
    )
    maximum: dict[str, float] = Field(
        default_factory=dict,
        description="Maximum values, on the test examples, of metrics for which lower is better, such as "
        "`{rmse: 60}`. A candidate above a maximum is rejected, with or without a champion.",
    )
    comparison: Literal["non_inferiority", "superiority"] = Field(
        default="non_inferiority",
        description="What the comparison with the best of the last five champions must show with 95 % "
        "confidence. non_inferiority: the candidate is not worse by more than the margin; superiority: the "
        "candidate is better by more than the margin. Otherwise the decision is hold.",
    )
    margin: Limits = Field(
        default_factory=dict,
        description="Metrics to compare with the champions, and the margin of each in the unit of the "
        "metric, such as `{accuracy: 0.01}` or `{balanced_accuracy: 0.02, recall: {defective: 0.1}}`. "
        "Default: balanced_accuracy with 0.02, or rmse with 2 % of the rmse of the baseline. With "
        "superiority, the default margin is 0.",
    )

    def named_slices(self) -> tuple[str, ...]:
        """Return the classes that a rule names."""
        limits = [*self.minimum.values(), *self.margin.values()]
        return tuple(sorted({name for entry in limits if isinstance(entry, dict) for name in entry}))


class RuleResult(NamedTuple):
    """A rule, and a sentence about its result; for some rules, only about a failure."""

    rule: Rule
    sentence: str


def decide(
    metrics: Metrics, gate: Gate | None, champion: int | None, notes: tuple[str, ...] = ()
) -> Decision:
    """Return the decision, its reason in a sentence, and the rules.

    `metrics` are those of the candidate, with its comparisons with champions. Without a gate, every model is
    promoted. `champion` is the version that is served now; `notes` are added to those of the gate.

    Raises:
        EvaluateError: the gate names a class that the data does not have.
    """
    value = f"the candidate's {metrics.primary} is {format_number(metrics.primary_metric.value)}"
    notes = (*_describe_small_slices(metrics), *notes)
    if gate is None:
        reason = f"{value}, and no gate is configured"
        return Decision(decision="promote", reason=reason, champion=champion, notes=notes)
    limits = _check_limits(metrics, gate)
    candidate_results = [*_check_baseline(metrics), *_check_recalls(metrics), *limits]
    comparisons = _compare_with_champions(metrics, gate, champion) if champion else []
    rejections, holds = _list_failures(candidate_results), _list_failures(comparisons)
    if holds:
        reason = "; ".join([*rejections, *holds, f"version {champion} remains the champion"])
    elif rejections:
        reason = "; ".join([*rejections, *_describe_champion(metrics, champion)])
    else:
        reason = _explain_promotion(metrics, value, limits, comparisons)
    return Decision(
        decision="reject" if rejections else "hold" if holds else "promote",
        reason=reason,
        champion=champion,
        rules=tuple(result.rule for result in (*candidate_results, *comparisons)),
        notes=notes,
    )


def _list_failures(results: list[RuleResult]) -> list[str]:
    return [result.sentence for result in results if not result.rule.passed]


def _describe_champion(metrics: Metrics, champion: int | None) -> list[str]:
    """Return a sentence with the primary metric of candidate and champion, if they were compared."""
    if (paired_metrics := metrics.same_examples) is None:
        return []
    name = metrics.primary
    values = paired_metrics.candidate[name].value, paired_metrics.champion[name].value
    return [_describe_values(name, values, f"version {champion}, the champion", paired_metrics.examples)]


def _explain_promotion(
    metrics: Metrics, value: str, limits: list[RuleResult], comparisons: list[RuleResult]
) -> str:
    """Return why all rules passed; `value` is the sentence with the primary metric of the candidate."""
    reasons = [result.sentence for result in limits]
    comparison = [result.sentence for result in comparisons] or ["there is no champion to compare it with"]
    primary = f"{metrics.primary} is {format_number(metrics.primary_metric.value)} for the candidate"
    if not reasons and not any(sentence.startswith(primary) for sentence in comparison):
        reasons = [value]
    return ("; " if comparisons else ", and ").join(filter(None, [", ".join(reasons), "; ".join(comparison)]))


def _check_baseline(metrics: Metrics) -> list[RuleResult]:
    """Check that the candidate beats a constant prediction, if it was compared with one."""
    if (comparison := metrics.baseline_comparison) is None:
        return []
    name, passed = comparison.metric, comparison.at_least > 0
    higher_is_better = _get_sign(metrics, name) > 0
    candidate, baseline = map(format_number, (metrics.values[name].value, comparison.other))
    if higher_is_better:  # the baseline's metric is the same for any test examples
        limit = comparison.other + comparison.at_least
        rule = Rule(
            rule=f"one-sided lower 95 % limit of {name} must be above the baseline's",
            value=limit,
            limit=comparison.other,
            passed=passed,
        )
        sentence = (
            f"the candidate's {name} is {candidate}, with 95 % confidence at least "
            f"{format_number(limit)}, which is not better than the {baseline} of a constant prediction"
        )
    else:  # the limit is that of the paired gain, not of the candidate's metric alone
        rule = Rule(
            rule=f"one-sided lower 95 % limit of the gain in {name} over the baseline must be above",
            value=comparison.at_least,
            limit=0.0,
            passed=passed,
        )
        sentence = (
            f"{name} is {candidate} for the candidate and {baseline} for a constant prediction, which "
            f"does not show that the candidate is better ({_describe_gain(comparison)})"
        )
    needed = _describe_examples_needed(
        "a model this good", comparison, metrics.examples, 0.0, higher_is_better
    )
    return [RuleResult(rule, sentence + needed)]


def _check_recalls(metrics: Metrics) -> list[RuleResult]:
    """Check that each class with enough test examples has a recall above 0."""
    slices = [entry for entry in metrics.slices if entry.examples >= MIN_EXAMPLES]
    recalls = {entry.name: entry.values["recall"].value for entry in slices if "recall" in entry.values}
    if not recalls:
        return []
    lowest, recall = min(recalls.items(), key=lambda item: item[1])
    names = [name for name, value in recalls.items() if not value]
    rule = Rule(
        rule=f"lowest recall of the classes with at least {MIN_EXAMPLES} test examples "
        f"(class {lowest}) must be above",
        value=recall,
        limit=0.0,
        passed=recall > 0,
    )
    return [RuleResult(rule, f"the candidate recognizes no test example of {summarize_names(names)}")]


def _check_limits(metrics: Metrics, gate: Gate) -> list[RuleResult]:
    results = []
    for limits, sign, kind, failure, success in (
        (gate.minimum, 1, "must be at least", "below the minimum of", "which reaches the minimum of"),
        (gate.maximum, -1, "must be at most", "above the maximum of", "within the maximum of"),
    ):
        for metric, threshold in limits.items():
            for name, value, limit in _find_limited_values(metrics, metric, threshold):
                passed = value is not None and sign * value >= sign * limit
                rule = Rule(rule=f"{name} {kind}", value=value, limit=limit, passed=passed)
                sentence = f"the candidate's {name} is unknown, because the class has no test examples"
                if value is not None:
                    result = f"{success if passed else failure} {format_number(limit)}"
                    sentence = f"the candidate's {name} is {format_number(value)}, {result}"
                results.append(RuleResult(rule, sentence))
    return results


def _find_limited_values(
    metrics: Metrics, metric: str, threshold: float | dict[str, float]
) -> list[tuple[str, float | None, float]]:
    """Return name, value and limit of a metric, or of the metric of classes."""
    if metric in metrics.values and not isinstance(threshold, dict):
        return [(metric, metrics.values[metric].value, threshold)]
    return [
        (f"{metric} of {entry.name}", entry.values[metric].value if metric in entry.values else None, limit)
        for entry, limit in _find_slice_limits(metrics, metric, threshold)
    ]


def _find_slice_limits(
    metrics: Metrics, metric: str, threshold: float | dict[str, float]
) -> list[tuple[Slice, float]]:
    if not isinstance(threshold, dict):
        return [(entry, threshold) for entry in metrics.slices]
    slices = {entry.name: entry for entry in metrics.slices}
    if unknown := [name for name in threshold if name not in slices]:
        raise EvaluateError(
            f"gate has a limit for the {metric} of {unknown[0]!r}, which is not a class; the classes are "
            f"{', '.join(list(slices)[:20])}. Correct the name and run again: finished steps are cached."
        )
    return [(slices[name], limit) for name, limit in threshold.items()]


def _compare_with_champions(metrics: Metrics, gate: Gate, champion: int) -> list[RuleResult]:
    comparisons = {(entry.metric, entry.slice): entry for entry in metrics.comparisons}
    description, baseline = get_description(metrics.problem), metrics.baseline_comparison
    default_metric = description.comparison_metrics[0]
    if (default_metric, "") not in comparisons:
        remaining = metrics.examples - metrics.trained_on[champion].count
        rule = f"number of test examples that version {champion} was not trained on must be at least"
        sentence = (
            f"the candidate cannot be compared with version {champion}, which was trained on all but "
            f"{remaining:,} of the test examples"
        )
        return [_fail_too_few(rule, remaining, sentence, MIN_EXAMPLES)]
    # the default margin is relative to the baseline if lower is better
    unit = baseline.other if baseline and _get_sign(metrics, default_metric) < 0 else 1.0
    default_margin = description.margin * unit if gate.comparison == "non_inferiority" else 0.0
    results = []
    for metric, margins in (gate.margin or {default_metric: default_margin}).items():
        if metric in metrics.values and not isinstance(margins, dict):
            named_margins = {"": margins}  # of all examples
        else:
            slice_margins = _find_slice_limits(metrics, metric, margins)
            named_margins = {entry.name: margin for entry, margin in slice_margins}
        for name, margin in named_margins.items():
            if comparison := comparisons.get((metric, name)):
                results.append(_check_comparison(metrics, gate, comparison, margin, champion))
            elif isinstance(margins, dict):
                rule = f"number of test examples of {name}, to compare its {metric}, must be at least"
                sentence = (
                    f"the {metric} of {name} cannot be compared, because there are no test examples of it"
                )
                results.append(_fail_too_few(rule, 0, sentence, 1))
    return results


def _fail_too_few(rule: str, count: int, sentence: str, minimum: int) -> RuleResult:
    return RuleResult(Rule(rule=rule, value=float(count), limit=float(minimum), passed=False), sentence)


def _check_comparison(
    metrics: Metrics, gate: Gate, comparison: Comparison, margin: float, champion: int
) -> RuleResult:
    """Check one comparison; after a failure, the sentence has the number of test examples needed to pass."""
    name = f"{comparison.metric} of {comparison.slice}" if comparison.slice else comparison.metric
    count = metrics.same_examples.examples if metrics.same_examples else metrics.examples
    sign = _get_sign(metrics, comparison.metric)
    non_inferiority = gate.comparison == "non_inferiority"
    limit = -margin if non_inferiority else margin
    passed = comparison.at_least >= limit if non_inferiority else comparison.at_least > limit
    rule = Rule(
        rule=f"one-sided lower 95 % limit of the gain in {name} over version {comparison.version} "
        f"must be {'at least' if non_inferiority else 'above'}",
        value=comparison.at_least,
        limit=limit,
        passed=passed,
    )
    values = comparison.other + sign * comparison.value, comparison.other
    article = "the" if comparison.version == champion else "an earlier"
    version = f"version {comparison.version}, {article} champion"
    conclusion = _conclude(comparison, margin, non_inferiority, passed, limit)
    sentence = (
        f"{_describe_values(name, values, version, count)}; this {conclusion} ({_describe_gain(comparison)})"
    )
    if not passed and comparison.high >= limit:
        model = "an equal model" if non_inferiority else "a model that is this much better"
        sentence += _describe_examples_needed(model, comparison, count, limit, sign > 0)
    return RuleResult(rule, sentence)


def _conclude(
    comparison: Comparison, margin: float, non_inferiority: bool, passed: bool, limit: float
) -> str:
    margin_text = f" by more than {format_number(margin)}" if margin else ""
    better, worse, contradicted = f"better{margin_text}", f"worse{margin_text}", comparison.high < limit
    if non_inferiority and passed:
        return f"shows that the candidate is {'better' if comparison.at_least > 0 else f'not {worse}'}"
    if non_inferiority:
        return f"{'shows' if contradicted else 'does not exclude'} that the candidate is {worse}"
    if contradicted:
        return f"shows that the candidate is not {better}"
    return f"{'shows' if passed else 'does not show'} that the candidate is {better}"


def _describe_values(name: str, values: tuple[float, float], version: str, count: int) -> str:
    candidate, champion = map(format_number, values)
    sentence = f"{name} is {candidate} for the candidate and {champion} for {version}"
    return f"{sentence}, on the same {count:,} test examples"


def _describe_examples_needed(
    model: str, comparison: Comparison, count: int, limit: float, counts_examples: bool
) -> str:
    """Return with how many test examples `model` would usually pass; empty if more would not help."""
    needed = examples_needed(comparison, count, limit, counts_examples)
    if needed is None:
        return ""
    return f"; with about {needed:,} test examples instead of {count:,}, {model} would pass 4 times in 5"


def examples_needed(comparison: Comparison, count: int, limit: float, counts_examples: bool) -> int | None:
    """Return the number of test examples with which 80 % of such comparisons pass.

    Return None if `count` examples suffice, or if no number does.

    With a limit below 0 (non-inferiority), the candidate is assumed to be equal; otherwise to be better by
    the measured gain. With n examples, the one-sided limit is z_95 s / sqrt(n) below the gain, where s is the
    standard deviation of the gain of an example.

    `counts_examples` is whether the metric counts examples, as accuracy does. Then the limit is lower by
    about RARE_EVENT_CORRECTION / n, which matters if the two models differ in few examples.
    """
    distance = -limit if limit < 0 else comparison.value - limit
    if distance <= 0:
        return None
    extra = RARE_EVENT_CORRECTION if counts_examples else 0.0
    spread = max(0.0, (comparison.value - comparison.at_least) * count - extra)
    spread /= ONE_SIDED * math.sqrt(count)
    width = (ONE_SIDED + POWER) * spread
    root = (width + math.sqrt(width**2 + 4 * distance * extra)) / (2 * distance)
    needed = math.ceil(root**2)
    return needed if needed > count else None


def _describe_small_slices(metrics: Metrics) -> tuple[str, ...]:
    small = [f"{entry.name} ({entry.examples})" for entry in metrics.slices if entry.examples < MIN_EXAMPLES]
    if small:
        return (f"fewer than {MIN_EXAMPLES} test examples, too few to judge: {summarize_names(small)}",)
    too_few = f"only {pluralize(metrics.examples, 'test example')}, too few to judge"
    return (too_few,) if metrics.examples < MIN_EXAMPLES else ()


def _get_sign(metrics: Metrics, metric: str) -> int:
    return -1 if metric in metrics.values and metrics.values[metric].direction == "lower" else 1


def _describe_gain(comparison: Comparison) -> str:
    gain, at_least = map(_add_sign, (comparison.value, comparison.at_least))
    return f"gain {gain}, with 95 % confidence at least {at_least}"


def _add_sign(value: float) -> str:
    return f"{'+' if value >= 0 else '-'}{format_number(abs(value))}"
