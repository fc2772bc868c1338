"""The plan on one screen."""

from collections.abc import Callable

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from modelyard.pipelines.planning.facts import facts
from modelyard.pipelines.planning.offers import Offer
from modelyard.pipelines.planning.plan import Plan
from modelyard.pipelines.planning.quantity import Quantity
from modelyard.pipelines.planning.words import dollars, seconds, size

OFFERS = 5


def show(plan: Plan, console: Console, everything: bool) -> None:
    """Print a plan.

    Args:
        plan: the plan.
        console: where.
        everything: all accelerators and all inputs, too.
    """
    for name, value in facts(plan).items():
        console.print(Text.assemble((f"{name:<11}", "dim"), value), soft_wrap=not console.is_terminal)
    offers = plan.offers if everything else plan.offers[:OFFERS]
    if offers:
        console.print(_offers(offers))
        more = len(plan.offers) - len(offers)
        shared = _shared(offers)
        notes = [*([f"all: {shared}"] if shared else []), *([f"{more} more with --all"] if more else [])]
        if notes:
            console.print("; ".join(notes), style="dim", markup=False)
    for name, reason in plan.rejected.items():
        console.print(f"left out: {name}: {reason}", style="yellow", markup=False, soft_wrap=True)
    if plan.spot:
        console.print(_spot(plan))
    console.print(_effort(plan))
    console.print(_risks(plan))
    if everything:
        console.print(_inputs(plan))
    for reason in plan.refusals:
        console.print(Text.assemble(("no: ", "bold red"), reason, "."), soft_wrap=True)
    for limit in plan.unjudged:
        console.print(Text.assemble(("open: ", "yellow"), limit, "."), soft_wrap=True)


def _shared(offers: tuple[Offer, ...]) -> str:
    """Return what is to be known of the times of all offers alike."""
    whys = {one.train.why for one in offers}
    return whys.pop() if len(whys) == 1 and len(offers) > 1 else ""


def _offers(offers: tuple[Offer, ...]) -> Table:
    shared = _shared(offers)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("accelerator", "memory", "steps", "USD", "USD on Spot", "remark"):
        table.add_column(name, overflow="fold")
    for offer in offers:
        table.add_row(
            f"{offer.accelerator} x{offer.count}",
            f"{size(offer.memory)}: {offer.fit}",
            *(
                ("–",) * 3
                if offer.refused
                else (
                    _short(offer.train, seconds),
                    _short(offer.on_demand, dollars),
                    _short(offer.spot, dollars),
                )
            ),
            Text(offer.refused or _remark(offer, shared)),
        )
    return table


def _remark(offer: Offer, shared: str) -> str:
    why = "" if offer.train.why == shared else offer.train.why
    return "; ".join(filter(None, (why, offer.remark)))


def _short(found: Quantity, say: Callable[[float], str]) -> str:
    if found.value is None:
        least = say(found.low) if found.low else ""
        return f"≥ {least}" if least and not least.startswith("<") else "unknown"
    return f"{say(found.low or 0.0)} to {'?' if found.high is None else say(found.high)}"


def _spot(plan: Plan) -> Group:
    lines, least = [], "" if plan.duration else "at least "
    for row in plan.spot:
        said = (
            f"Spot, taken away every {row.hours_between:g} h on average: {least}{_times(row.configured)} as "
            f"configured, {_times(row.best)} with training.checkpoint_every of {row.interval:.0f}, "
            f"{_times(row.without)} without checkpoints"
        )
        lines.append(Text(said, "dim"))
    if least and lines:
        said = "what an attempt takes until it trains again is not counted: nobody probed it"
        lines.append(Text(said, "dim"))
    return Group(*lines)


def _times(factor: float | None) -> str:
    return "never ends" if factor is None else f"x{factor:.3g}"


def _risks(plan: Plan) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("what can go wrong", "probability", "what lowers it"):
        table.add_column(name, overflow="fold")
    for risk in plan.risks:
        table.add_row(Text(risk.what), Text(risk.probability), Text(risk.lowers))
    return table


def _effort(plan: Plan) -> Table | Text:
    if not plan.effort:
        return Text.assemble((f"{'to do':<11}", "dim"), "nothing before it can be started")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("to do first", "takes", "how"):
        table.add_column(name, overflow="fold")
    for one in plan.effort:
        table.add_row(Text(one.what), Text(one.takes), Text(one.how))
    return table


def _inputs(plan: Plan) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("input", "value", "known", "from"):
        table.add_column(name, overflow="fold")
    for one in plan.inputs:
        table.add_row(Text(one.name), Text(one.value), one.basis, Text(one.source))
    return table
