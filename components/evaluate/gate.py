"""`gate`: what a candidate must reach, and whether it is promoted: a pure function of what was measured.

Each rule becomes a record with the value, the limit and whether it passed. A rule about the candidate alone
rejects it, a comparison with the champion holds it.
"""

import math
from typing import Literal, NamedTuple

from pydantic import Field

from modelyard.components.artifacts import Comparison, Decision, Metrics, Rule, Slice, format_number
from modelyard.components.errors import EvaluateError
from modelyard.components.problems import describe
from modelyard.components.settings import Settings

ENOUGH_ROWS = 10
"""Test rows of a class from which on it must be recognised at least once."""
NAMED = 5
ONE_SIDED, POWER = 1.645, 0.842
"""Normal quantiles of 95 %, the one-sided limit, and of 80 %, how often an equal model is to pass."""

Limits = dict[str, float | dict[str, float]]


class Gate(Settings):
    """What a candidate must reach to be promoted.

    Without a key, it must be better than a constant prediction, recognise every class that has at least 10
    test examples, and not be worse than the best of the last five champions by more than a margin.
    """

    minimum: Limits = Field(
        default_factory=dict,
        description="Smallest value of metrics of which higher is better, on the test rows, such as "
        "`{accuracy: 0.9}`; a candidate below it is rejected, champion or not. Of classes: "
        "`{recall: {defective: 0.8}}`, or `{recall: 0.5}` for each.",
    )
    maximum: dict[str, float] = Field(
        default_factory=dict,
        description="Largest value of metrics of which lower is better, on the test rows, such as "
        "`{rmse: 60}`; a candidate above it is rejected, champion or not.",
    )
    comparison: Literal["non_inferiority", "superiority"] = Field(
        default="non_inferiority",
        description="What the paired comparison with the best of the last five champions must show, with "
        "95 % confidence: non_inferiority: not worse by more than the margin; superiority: better by more "
        "than the margin. Otherwise the candidate is held.",
    )
    margin: Limits = Field(
        default_factory=dict,
        description="What is compared, and the margin in the unit of the metric, such as `{accuracy: 0.01}` "
        "or `{balanced_accuracy: 0.02, recall: {defective: 0.1}}`. Default: balanced_accuracy, or rmse; with "
        "non_inferiority 0.02, of rmse 2 % of a constant prediction's, with superiority 0.",
    )


class Checked(NamedTuple):
    """A rule with the sentence that tells how it went."""

    rule: Rule
    sentence: str


def decide(metrics: Metrics, gate: Gate | None, champion: int | None) -> Decision:
    """Return the decision, its reason in a sentence, and the rules.

    Args:
        metrics: of the candidate, with the comparisons with the champions if there are any.
        gate: what is asked for; None promotes every model.
        champion: the version that is served now; None when there is none.

    Raises:
        EvaluateError: the gate names a class that the data does not have.
    """
    value = f"{metrics.primary} is {format_number(metrics.main.value)}"
    if gate is None:
        return Decision(
            decision="promote",
            reason=f"{value}, and no gate is configured",
            champion=champion,
            notes=_notes(metrics),
        )
    alone = [*_useful(metrics), *_limits(metrics, gate)]
    compared = _compared(metrics, gate) if champion else []
    failed = [one for one in (*alone, *compared) if not one.rule.passed]
    reached = [one.sentence for one in _limits(metrics, gate)] or [value]
    against = [one.sentence for one in compared] or ["there is no champion to beat"]
    reason = f"{', '.join(reached)}, and {'; '.join(against)}"
    if failed:
        reason = "; ".join(one.sentence for one in failed)
    return Decision(
        decision="reject" if any(not one.rule.passed for one in alone) else "hold" if failed else "promote",
        reason=reason,
        champion=champion,
        rules=tuple(one.rule for one in (*alone, *compared)),
        notes=_notes(metrics),
    )


def _useful(metrics: Metrics) -> list[Checked]:
    """Check that the candidate is better than a constant prediction, and that it recognises each class."""
    found = []
    if one := metrics.constant:
        sign, measured = _sign(metrics, one.metric), metrics.values[one.metric].value
        limit, passed = one.other + sign * one.at_least, one.at_least > 0
        rule = Rule(
            rule=f"{one.metric}, 95 % limit, better than a constant prediction's",
            value=limit,
            limit=one.other,
            passed=passed,
        )
        found.append(
            Checked(
                rule,
                f"{one.metric} {format_number(measured)} (95 % limit {format_number(limit)}) is "
                f"{'' if passed else 'not '}better than a constant prediction's {format_number(one.other)}",
            )
        )
    judged = [one for one in metrics.slices if one.rows >= ENOUGH_ROWS and "recall" in one.values]
    if judged:
        worst = min(judged, key=lambda one: one.values["recall"].value)
        recall = worst.values["recall"].value
        never = [one.name for one in judged if not one.values["recall"].value]
        rule = Rule(
            rule=f"recall of {worst.name}, the lowest of the classes with {ENOUGH_ROWS} test rows, above",
            value=recall,
            limit=0.0,
            passed=recall > 0,
        )
        found.append(
            Checked(
                rule,
                f"no test row of {_names(never)} is recognised"
                if never
                else f"recall {format_number(recall)}",
            )
        )
    return found


def _limits(metrics: Metrics, gate: Gate) -> list[Checked]:
    """Check the configured limits."""
    found = []
    for limits, sign, kind, missed, met in (
        (gate.minimum, 1, "at least", "below the minimum", "reaches the minimum"),
        (gate.maximum, -1, "at most", "above the maximum", "is within the maximum"),
    ):
        for metric, asked in limits.items():
            for name, value, limit in _values(metrics, metric, asked):
                passed = value is not None and sign * value >= sign * limit
                number = (
                    "unknown, as there are no test rows for it," if value is None else format_number(value)
                )
                words = met if passed else f"is {missed}"
                rule = Rule(rule=f"{name} {kind}", value=value, limit=limit, passed=passed)
                found.append(Checked(rule, f"{name} {number} {words} of {format_number(limit)}"))
    return found


def _values(
    metrics: Metrics, metric: str, asked: float | dict[str, float]
) -> list[tuple[str, float | None, float]]:
    """Return name, value and limit of a metric, or of the metric of classes."""
    if metric in metrics.values and not isinstance(asked, dict):
        return [(metric, metrics.values[metric].value, asked)]
    return [
        (f"{metric} of {one.name}", one.values[metric].value if metric in one.values else None, limit)
        for one, limit in _of_slices(metrics, metric, asked)
    ]


def _of_slices(metrics: Metrics, metric: str, asked: float | dict[str, float]) -> list[tuple[Slice, float]]:
    if not isinstance(asked, dict):
        return [(one, asked) for one in metrics.slices]
    known = {one.name: one for one in metrics.slices}
    if unknown := [name for name in asked if name not in known]:
        raise EvaluateError(
            f"gate asks for the {metric} of {unknown[0]!r}, which is not a class; the classes are "
            f"{', '.join(list(known)[:20])}. Correct the name; the training comes from the cache."
        )
    return [(known[name], limit) for name, limit in asked.items()]


def _compared(metrics: Metrics, gate: Gate) -> list[Checked]:
    """Check the comparisons with the best of the champions."""
    description = describe(metrics.problem)
    found: dict[tuple[str, str], Comparison] = {(one.metric, one.slice): one for one in metrics.comparisons}
    default = found.get((description.compared[0], ""))
    if default is None:
        return []
    sign = _sign(metrics, default.metric)
    unit = 1.0 if sign > 0 or metrics.constant is None else metrics.constant.other
    usual = description.margin * unit if gate.comparison == "non_inferiority" else 0.0
    checked = []
    for metric, asked in (gate.margin or {default.metric: usual}).items():
        whole = metric in metrics.values and not isinstance(asked, dict)
        pairs = [("", asked)] if whole else [(one.name, m) for one, m in _of_slices(metrics, metric, asked)]
        for name, margin in pairs:
            if one := found.get((metric, name)):
                checked.append(_check(metrics, gate, one, float(margin)))  # type: ignore[arg-type]
    return checked


def _check(metrics: Metrics, gate: Gate, one: Comparison, margin: float) -> Checked:
    """Check one comparison; a failed one says how many test rows it takes."""
    name = f"{one.metric} of {one.slice}" if one.slice else one.metric
    inferior = gate.comparison == "non_inferiority"
    limit = -margin if inferior else margin
    passed = one.at_least >= limit if inferior else one.at_least > limit
    asked = (
        f"not worse by more than {format_number(margin)}"
        if inferior
        else f"better by more than {format_number(margin)}"
    )
    rule = Rule(
        rule=f"gain in {name} over version {one.version}, 95 % limit, above",
        value=one.at_least,
        limit=limit,
        passed=passed,
    )
    value = one.other + _sign(metrics, one.metric) * one.value
    sentence = (
        f"{name} {format_number(value)} is {'' if passed else 'not shown to be '}{asked} than "
        f"version {one.version}'s {format_number(one.other)} (gain {_signed(one.value)}, at least "
        f"{_signed(one.at_least)} with 95 % confidence)"
    )
    if not passed and (rows := rows_needed(one, metrics.rows, limit)):
        who = "an equal model" if inferior else "a model that is this much better"
        sentence += (
            f"; {who} would pass 4 times in 5 with about {rows:,} test rows, there are {metrics.rows:,}: "
            "until then the champion stays"
        )
    return Checked(rule, sentence)


def rows_needed(one: Comparison, rows: int, limit: float) -> int | None:
    """Return the test rows with which the comparison would pass in 80 % of all cases, if it takes more.

    With non-inferiority (a limit below 0) of an equal model, else of a model that is better by as much as
    this one. The standard error falls with the square root of the rows: n (z_95 + z_80)² (s / distance)².
    """
    distance = -limit if limit < 0 else one.value - limit
    if distance <= 0:
        return None
    error = (one.value - one.at_least) / ONE_SIDED
    needed = math.ceil(rows * ((ONE_SIDED + POWER) * error / distance) ** 2)
    return needed if needed > rows else None


def _notes(metrics: Metrics) -> tuple[str, ...]:
    few = [f"{one.name} ({one.rows})" for one in metrics.slices if one.rows < ENOUGH_ROWS]
    return (f"fewer than {ENOUGH_ROWS} test rows, too few to judge: {_names(few)}",) if few else ()


def _names(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _sign(metrics: Metrics, metric: str) -> int:
    return -1 if metric in metrics.values and metrics.values[metric].direction == "lower" else 1


def _signed(value: float) -> str:
    return f"{'+' if value >= 0 else '-'}{format_number(abs(value))}"
