"""`gate`: what a candidate must reach, and whether it is promoted: a pure function of what was measured."""

from pydantic import Field

from modelyard.components.artifacts import Decision, Metrics, format_number
from modelyard.components.settings import Settings


class Gate(Settings):
    """What a candidate must reach to be promoted."""

    minimum: dict[str, float] = Field(
        default_factory=dict,
        description="Smallest value of metrics of which higher is better, on the test rows, such as "
        "`{accuracy: 0.9}`; a candidate below it is rejected, champion or not.",
    )
    maximum: dict[str, float] = Field(
        default_factory=dict,
        description="Largest value of metrics of which lower is better, on the test rows, such as "
        "`{rmse: 60}`; a candidate above it is rejected, champion or not.",
    )
    min_improvement: float = Field(
        default=0.0,
        ge=0,
        description="By how much the primary metric must be better than the champion's, in its own unit; "
        "a candidate that is not better at all is held.",
    )


def decide(metrics: Metrics, gate: Gate | None, champion: int | None) -> Decision:
    """Return the decision and its reason, in a sentence.

    Args:
        metrics: of the candidate, with the gain over the champion if there is one.
        gate: what is asked for; None promotes every model.
        champion: the version that the gain is over; None when there is none.
    """
    name, value = metrics.primary, format_number(metrics.main.value)
    if gate is None:
        reason = f"{name} is {value}, and no gate is configured"
        return Decision(decision="promote", reason=reason, champion=champion)
    reached = []
    for limits, sign, missed, met in (
        (gate.minimum, 1, "below the minimum", "reaches the minimum"),
        (gate.maximum, -1, "above the maximum", "is within the maximum"),
    ):
        for metric, limit in limits.items():
            found = metrics.values[metric].value
            said = f"{metric} {format_number(found)}"
            if sign * found < sign * limit:
                reason = f"{said} is {missed} of {format_number(limit)}"
                return Decision(decision="reject", reason=reason, champion=champion)
            reached.append(f"{said} {met} of {format_number(limit)}")
    if champion is None or metrics.gain is None or metrics.champion is None:
        reason = f"{', '.join(reached) or f'{name} is {value}'}, and there is no champion to beat"
        return Decision(decision="promote", reason=reason, champion=champion)
    gain, other = metrics.gain.value, format_number(metrics.champion.value)
    least = format_number(gate.min_improvement)
    asked = f"at least {least} was asked for" if gate.min_improvement else "any improvement is enough"
    better = f"{name} {value} beats version {champion}'s {other} by {format_number(gain)}"
    if gain > 0 and gain >= gate.min_improvement:
        return Decision(decision="promote", reason=f"{better}, and {asked}", champion=champion)
    reason = (
        f"{better}, but {asked}" if gain > 0 else f"{name} {value} does not beat version {champion}'s {other}"
    )
    return Decision(decision="hold", reason=reason, champion=champion)
