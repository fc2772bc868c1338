"""`gate`: what a candidate must reach, and whether it is promoted: a pure function of what was measured."""

from pydantic import Field

from modelyard.components.artifacts import Decision, Metrics
from modelyard.components.settings import Settings


class Gate(Settings):
    """What a candidate must reach to be promoted."""

    floor: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Minimum test accuracy; a candidate below it is rejected, champion or not.",
    )
    min_gain: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Minimum gain in test accuracy over the champion; without any gain a candidate is held.",
    )


def decide(metrics: Metrics, gate: Gate | None, champion: int | None) -> Decision:
    """Return the decision and its reason, in a sentence.

    Args:
        metrics: of the candidate, with the gain over the champion if there is one.
        gate: what is asked for; None promotes every model.
        champion: the version that the gain is over; None when there is none.
    """
    accuracy = metrics.accuracy.value
    if gate is None:
        return Decision(
            decision="promote",
            reason=f"accuracy is {accuracy:.4f}, and no gate is configured",
            champion=champion,
        )
    if accuracy < gate.floor:
        reason = f"accuracy {accuracy:.4f} is below the floor of {gate.floor:.4f}"
        return Decision(decision="reject", reason=reason, champion=champion)
    if champion is None or metrics.gain is None or metrics.champion_accuracy is None:
        reason = f"accuracy {accuracy:.4f} reaches the floor of {gate.floor:.4f}, and there is no champion"
        return Decision(decision="promote", reason=f"{reason} to beat", champion=champion)
    gain, other = metrics.gain.value, metrics.champion_accuracy.value
    asked = f"at least {gate.min_gain:.4f} was asked for" if gate.min_gain else "any gain is enough"
    if gain > 0 and gain >= gate.min_gain:
        reason = f"accuracy {accuracy:.4f} beats version {champion}'s {other:.4f} by {gain:.4f}, and {asked}"
        return Decision(decision="promote", reason=reason, champion=champion)
    if gain > 0:
        reason = f"accuracy {accuracy:.4f} beats version {champion}'s {other:.4f} by {gain:.4f}, but {asked}"
    else:
        reason = f"accuracy {accuracy:.4f} does not beat version {champion}'s {other:.4f}"
    return Decision(decision="hold", reason=reason, champion=champion)
