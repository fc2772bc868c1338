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
RARE = 1.3
"""Rows by which the limits of counts of rare events (`intervals.paired_gain`) are wider than normal ones."""

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

    def named_slices(self) -> tuple[str, ...]:
        """Return the classes that have rules of their own."""
        limits = [*self.minimum.values(), *self.margin.values()]
        return tuple(sorted({name for one in limits if isinstance(one, dict) for name in one}))


class Checked(NamedTuple):
    """A rule with the sentence that tells how it went."""

    rule: Rule
    sentence: str


def decide(
    metrics: Metrics, gate: Gate | None, champion: int | None, notes: tuple[str, ...] = ()
) -> Decision:
    """Return the decision, its reason in a sentence, and the rules.

    Args:
        metrics: of the candidate, with the comparisons with the champions if there are any.
        gate: what is asked for; None promotes every model.
        champion: the version that is served now; None when there is none.
        notes: what else the decision is to say.

    Raises:
        EvaluateError: the gate names a class that the data does not have.
    """
    value = f"the candidate's {metrics.primary} is {format_number(metrics.main.value)}"
    notes = (*_notes(metrics), *notes)
    if gate is None:
        reason = f"{value}, and no gate is configured"
        return Decision(decision="promote", reason=reason, champion=champion, notes=notes)
    limits = _limits(metrics, gate)
    alone = [*_useful(metrics), *limits]
    compared = _compared(metrics, gate, champion) if champion else []
    failed = [one.sentence for one in (*alone, *compared) if not one.rule.passed]
    rejected = not all(one.rule.passed for one in alone)
    if failed:
        if metrics.same_rows and all(
            one.rule.passed for one in compared
        ):  # then no sentence has the champion's
            both, name = metrics.same_rows, metrics.primary
            values = both.candidate[name].value, both.champion[name].value
            failed.append(_side_by_side(name, values, f"version {champion}, the champion", both.rows))
        reason = "; ".join(failed)
        if not all(one.rule.passed for one in compared):
            reason += "; the champion stays"
    else:
        reached = [one.sentence for one in limits] or [value]
        against = [one.sentence for one in compared] or ["there is no champion to compare it with"]
        reason = f"{', '.join(reached)}, and {'; '.join(against)}"
    return Decision(
        decision="reject" if rejected else "hold" if failed else "promote",
        reason=reason,
        champion=champion,
        rules=tuple(one.rule for one in (*alone, *compared)),
        notes=notes,
    )


def _useful(metrics: Metrics) -> list[Checked]:
    """Check that the candidate is better than a constant prediction, and that it recognises each class."""
    found = []
    if one := metrics.constant:
        sign, measured = _sign(metrics, one.metric), metrics.values[one.metric].value
        limit, passed = one.other + sign * one.at_least, one.at_least > 0
        rule = Rule(
            rule=f"{'lower' if sign > 0 else 'upper'} 95 % limit of {one.metric}, better than a constant "
            "prediction's",
            value=limit,
            limit=one.other,
            passed=passed,
        )
        bound = "at least" if sign > 0 else "at most"
        sentence = (
            f"the candidate's {one.metric} is {format_number(measured)}, with 95 % confidence {bound} "
            f"{format_number(limit)}, which is {'' if passed else 'not '}better than the "
            f"{format_number(one.other)} of a constant prediction"
        )
        if rows := None if passed else rows_needed(one, metrics.rows, 0.0, sign > 0):
            sentence += (
                f"; a model this good would pass 4 times in 5 with about {rows:,} test rows, there are "
                f"{metrics.rows:,}"
            )
        found.append(Checked(rule, sentence))
    judged = [one for one in metrics.slices if one.rows >= ENOUGH_ROWS and "recall" in one.values]
    if judged:
        worst = min(judged, key=lambda one: one.values["recall"].value)
        recall = worst.values["recall"].value
        never = [one.name for one in judged if not one.values["recall"].value]
        rule = Rule(
            rule=f"recall of {worst.name}, lowest of the classes with {ENOUGH_ROWS} test rows or more, above",
            value=recall,
            limit=0.0,
            passed=recall > 0,
        )
        found.append(
            Checked(
                rule,
                f"the candidate recognises no test row of {_names(never)}"
                if never
                else f"recall {format_number(recall)}",
            )
        )
    return found


def _limits(metrics: Metrics, gate: Gate) -> list[Checked]:
    """Check the configured limits."""
    found = []
    for limits, sign, kind, missed, met in (
        (gate.minimum, 1, "at least", "below the minimum of", "which reaches the minimum of"),
        (gate.maximum, -1, "at most", "above the maximum of", "within the maximum of"),
    ):
        for metric, asked in limits.items():
            for name, value, limit in _values(metrics, metric, asked):
                passed = value is not None and sign * value >= sign * limit
                rule = Rule(rule=f"{name} {kind}", value=value, limit=limit, passed=passed)
                sentence = f"the candidate's {name} is unknown, as there are no test rows for it"
                if value is not None:
                    words = met if passed else missed
                    sentence = (
                        f"the candidate's {name} is {format_number(value)}, {words} {format_number(limit)}"
                    )
                found.append(Checked(rule, sentence))
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


def _compared(metrics: Metrics, gate: Gate, champion: int) -> list[Checked]:
    """Check the comparisons with the best of the champions."""
    description = describe(metrics.problem)
    found: dict[tuple[str, str], Comparison] = {(one.metric, one.slice): one for one in metrics.comparisons}
    default = found.get((description.compared[0], ""))
    if default is None:
        left = metrics.rows - metrics.trained_on[champion].count
        rule = f"test rows that version {champion} was not trained on, at least"
        return [_too_few(rule, left, f"the candidate cannot be compared with version {champion}")]
    sign = _sign(metrics, default.metric)
    unit = 1.0 if sign > 0 or metrics.constant is None else metrics.constant.other
    usual = description.margin * unit if gate.comparison == "non_inferiority" else 0.0
    checked = []
    for metric, asked in (gate.margin or {default.metric: usual}).items():
        whole = metric in metrics.values and not isinstance(asked, dict)
        pairs = [("", asked)] if whole else [(one.name, m) for one, m in _of_slices(metrics, metric, asked)]
        for name, margin in pairs:
            if one := found.get((metric, name)):
                checked.append(_check(metrics, gate, one, float(margin), champion))  # type: ignore[arg-type]
            elif isinstance(asked, dict):
                rule = f"test rows of {name}, to compare its {metric}, at least"
                checked.append(_too_few(rule, 0, f"the {metric} of {name} cannot be compared", 1))
    return checked


def _too_few(rule: str, rows: int, sentence: str, least: int = ENOUGH_ROWS) -> Checked:
    """Return that there is nothing to compare on."""
    found = Rule(rule=rule, value=float(rows), limit=float(least), passed=False)
    return Checked(found, f"{sentence}: {rows:,} test rows are left for that")


def _check(metrics: Metrics, gate: Gate, one: Comparison, margin: float, champion: int) -> Checked:
    """Check one comparison; a failed one says how many test rows it takes."""
    name = f"{one.metric} of {one.slice}" if one.slice else one.metric
    rows = metrics.same_rows.rows if metrics.same_rows else metrics.rows
    inferior = gate.comparison == "non_inferiority"
    limit = -margin if inferior else margin
    passed = one.at_least >= limit if inferior else one.at_least > limit
    rule = Rule(
        rule=f"lower 95 % limit of the gain in {name} over version {one.version}, "
        f"{'at least' if inferior else 'above'}",
        value=one.at_least,
        limit=limit,
        passed=passed,
    )
    values = one.other + _sign(metrics, one.metric) * one.value, one.other
    who = f"version {one.version}, {'the' if one.version == champion else 'an earlier'} champion"
    claim = f"at most {format_number(margin)} worse" if inferior else "better"
    claim += f" by more than {format_number(margin)}" if margin and not inferior else ""
    verdict = f"{'shows' if passed else 'does not show'} that the candidate is {claim}"
    if clearly_not := one.high < limit:
        not_so = f"more than {format_number(margin)} worse" if inferior else f"not {claim}"
        verdict = f"shows that the candidate is {not_so}"
    sentence = (
        f"{_side_by_side(name, values, who, rows)}, which {verdict} (gain {_signed(one.value)}, with 95 % "
        f"confidence at least {_signed(one.at_least)})"
    )
    if not passed:
        needed = rows_needed(one, rows, limit, _sign(metrics, one.metric) > 0)
        if needed and not clearly_not:
            which = "an equal model" if inferior else "a model that is this much better"
            sentence += (
                f"; {which} would pass 4 times in 5 with about {needed:,} test rows, there are {rows:,}"
            )
    return Checked(rule, sentence)


def _side_by_side(name: str, values: tuple[float, float], who: str, rows: int) -> str:
    mine, other = map(format_number, values)
    return f"{name} is {mine} for the candidate and {other} for {who}, on the same {rows:,} test rows"


def rows_needed(one: Comparison, rows: int, limit: float, counted: bool) -> int | None:
    """Return the test rows with which the comparison would pass in 80 % of all cases, if it takes more.

    With non-inferiority (a limit below 0) of an equal model, else of a model that is better by as much as
    this one. Of n rows, the one-sided limit is z_95 s / sqrt(n) below the gain, and where rows are counted,
    as for accuracy, about RARE / n more, which matters when the two models differ in few rows.
    """
    distance = -limit if limit < 0 else one.value - limit
    if distance <= 0:
        return None
    extra = RARE if counted else 0.0
    spread = max(0.0, (one.value - one.at_least) * rows - extra) / (ONE_SIDED * math.sqrt(rows))
    both = (ONE_SIDED + POWER) * spread
    root = (both + math.sqrt(both**2 + 4 * distance * extra)) / (2 * distance)
    needed = math.ceil(root**2)
    return needed if needed > rows else None


def _notes(metrics: Metrics) -> tuple[str, ...]:
    few = [f"{one.name} ({one.rows})" for one in metrics.slices if one.rows < ENOUGH_ROWS]
    if few:
        return (f"fewer than {ENOUGH_ROWS} test rows, too few to judge: {_names(few)}",)
    return (f"only {metrics.rows} test rows, too few to judge",) if metrics.rows < ENOUGH_ROWS else ()


def _names(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _sign(metrics: Metrics, metric: str) -> int:
    return -1 if metric in metrics.values and metrics.values[metric].direction == "lower" else 1


def _signed(value: float) -> str:
    return f"{'+' if value >= 0 else '-'}{format_number(abs(value))}"
