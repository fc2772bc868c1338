"""What speaks against a run: memory, budget, deadline, accelerators that cannot do it."""

from collections.abc import Callable

from pipelines.plan.offers import Offer
from pipelines.plan.plan import Plan, Wishes
from pipelines.plan.quantity import Quantity
from pipelines.plan.words import dollars, size

HOUR = 3600.0


def refusals(plan: Plan, wishes: Wishes, chosen: Offer | None) -> tuple[str, ...]:
    """Return why the run should not be started; each reason with what to change.

    Args:
        plan: without its refusals.
        wishes: budget and deadline.
        chosen: the accelerator that it would run on; None when it is none.
    """
    found = []
    if chosen and chosen.refused:
        found.append(f"{chosen.accelerator}: {chosen.refused}")
    elif plan.fit == "does not fit" and not wishes.on:
        found.append(
            f"The variables and gradients take {size(plan.memory.fixed)} and do not fit into {plan.place}: "
            "take a smaller model or a larger machine"
        )
    usable = [one for one in plan.offers if not one.refused]
    if plan.fit != "fits" and not usable and all(one.fit == "does not fit" for one in plan.offers):
        found.append("No single device of the list holds the model, and Keras on TensorFlow cannot split it")
    return (*found, *limits(plan.run, plan.money, wishes))


def limits(run: Quantity, money: Quantity, wishes: Wishes) -> tuple[str, ...]:
    """Return which of budget and deadline a run breaks, by what is expected or by what is certain.

    Args:
        run: seconds of the whole run.
        money: USD.
        wishes: budget and deadline.
    """
    found = []
    if wishes.deadline is not None:
        found += _over(run, wishes.deadline * HOUR, "--deadline", f"{wishes.deadline:g} h", _hours)
    if wishes.budget is not None:
        found += _over(money, wishes.budget, "--budget", f"{wishes.budget:g} USD", dollars)
    return tuple(found)


def _over(found: Quantity, limit: float, option: str, said: str, words: Callable[[float], str]) -> list[str]:
    """Return a refusal when what is expected, or what is certain, is above a limit."""
    expected = found.value if found.value is not None else found.low
    if expected is None or expected <= limit:
        return []
    shown = words(expected)
    least = "at least " if found.value is None else ""
    return [f"It takes {least}{shown}, more than {option} {said}: fewer training.epochs, or another machine"]


def _hours(seconds: float) -> str:
    return f"{seconds / HOUR:.3g} h"
