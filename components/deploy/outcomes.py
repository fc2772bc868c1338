"""How a deploy ends when somebody else decided first; the same words on a laptop and on a cluster."""

from modelyard.components.artifacts import Outcome


def overtaken(version: int, expected: int | None, why: str) -> Outcome:
    """Return that `version` is held: the champion changed while it was compared with `expected` (0: none)."""
    beaten = f"version {expected}" if expected else "no champion"
    return Outcome(
        version=version,
        decision="hold",
        reason=f"the champion changed while this run was compared with {beaten} ({why}); run again to "
        "compare with the new one",
    )
