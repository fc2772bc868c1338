"""What speaks against a run: memory, accelerators that cannot do it, and limits.

Limits are those that somebody asks for, `--budget` and `--deadline`, and the environment's own: the times
after which it stops the step `train` and the whole run.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from modelyard.components.train.settings import Training
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.planning.offers import Offer
from modelyard.pipelines.planning.plan import Plan, Wishes
from modelyard.pipelines.planning.quantity import Quantity
from modelyard.pipelines.planning.words import dollars, size

HOUR = 3600.0
REMEDY = "fewer training.epochs, or another machine"


class Limit(NamedTuple):
    """What a run must not exceed, in seconds or USD, and what is known of it; `asked` if somebody did."""

    name: str
    most: float
    found: Quantity
    words: Callable[[float], str]
    asked: bool = True
    what: str = "It"
    remedy: str = REMEDY


class Judged(NamedTuple):
    """Limits that a run breaks, and those of which nobody can tell; sentences without a stop."""

    against: tuple[str, ...]
    unjudged: tuple[str, ...]


def unfit(plan: Plan, wishes: Wishes, chosen: Offer | None) -> tuple[str, ...]:
    """Return why it cannot be done at all where the plan is for; each reason with what to change.

    Args:
        plan: without its refusals.
        wishes: whether somebody asks about certain accelerators.
        chosen: the accelerator that it would run on; None when it is none.
    """
    found = []
    if chosen and chosen.refused:
        found.append(f"{chosen.accelerator}: {chosen.refused}")
    elif plan.fit == "does not fit" and not wishes.on:
        exact = (
            f"The variables and gradients take {size(plan.memory.fixed)} and do not fit into {plan.place}: "
            "take a smaller model or a larger machine"
        )
        found.append(plan.too_large.rstrip(".") if plan.too_large else exact)
    nowhere = plan.offers and all(one.fit == "does not fit" for one in plan.offers)
    if plan.fit == "does not fit" and nowhere and not wishes.on:
        found.append("No single device of the list holds the model, and Keras on TensorFlow cannot split it")
    return tuple(found)


def judge(
    train: Quantity,
    run: Quantity,
    money: Quantity,
    wishes: Wishes,
    environment: Environment,
    training: Training,
) -> Judged:
    """Say which limits a run breaks: by what is expected or, where that is not known, by what is certain.

    Args:
        train: seconds of the step `train`.
        run: seconds of the whole run.
        money: USD.
        wishes: budget and deadline.
        environment: where it would run.
        training: whether early stopping may end it before its last epoch; then only the least is certain.
    """
    early = training.least_epochs < training.epochs
    against, unjudged = [], []
    for limit in (*_asked(run, money, wishes), *_own(train, run, environment)):
        name, value, words = limit.name, limit.found.value, limit.words
        takes = (limit.found.low or 0.0) if early or value is None else value
        if takes > limit.most:
            least = "at least " if early or value is None else ""
            against.append(f"{limit.what} takes {least}{words(takes)}, more than {name}: {limit.remedy}")
        elif value is None and limit.asked:
            why = limit.found.why or "what it takes is not known"
            unjudged.append(f"Nobody can tell whether it keeps {name}: {why}")
        elif value is not None and value > limit.most:
            unjudged.append(f"It keeps {name} only if early stopping ends it: all epochs take {words(value)}")
    return Judged(tuple(against), tuple(unjudged))


def _asked(run: Quantity, money: Quantity, wishes: Wishes) -> Iterator[Limit]:
    if wishes.deadline is not None:
        yield Limit(f"--deadline {wishes.deadline:g} h", wishes.deadline * HOUR, run, _hours)
    if wishes.budget is not None:
        yield Limit(f"--budget {wishes.budget:g} USD", wishes.budget, money, dollars)


def _own(train: Quantity, run: Quantity, environment: Environment) -> Iterator[Limit]:
    """Yield the times after which an environment ends what is not over; this machine ends nothing."""
    if environment.kind == "local":
        return
    timeout, whole = environment.resources("train").timeout, environment.active_deadline
    remedy = f"raise it, or {REMEDY}"
    if timeout:
        name = f"environment.steps.train.timeout, {_hours(timeout)}"
        yield Limit(name, timeout, train, _hours, asked=False, what="The step train", remedy=remedy)
    name = f"environment.active_deadline, {_hours(whole)}"
    yield Limit(name, whole, run, _hours, asked=False, remedy=remedy)


def _hours(seconds: float) -> str:
    return f"{seconds / HOUR:.3g} h"
