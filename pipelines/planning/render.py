"""Print a plan on one screen, 80 columns wide."""

import textwrap
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from modelyard.components.artifacts import format_number
from modelyard.pipelines.planning.plan import Estimate, Option, Plan, TrainTime

SHOWN = 5
FITS = {"fits": "fits into", "uncertain": "may not fit into", "does not fit": "does not fit into"}
INDENT = 11
NBSP = "\N{NO-BREAK SPACE}"  # between a number and its unit: textwrap breaks no line there
PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def show(plan: Plan, console: Console, everything: bool, probe: str) -> None:
    """Print a plan.

    Args:
        plan: the plan.
        console: where.
        everything: show all accelerators; else the first five.
        probe: the command that makes this plan with a probe.
    """
    lines = [(name, value, "dim") for name, value in facts(plan).items()]
    if not plan.train and plan.fit != "does not fit":
        fits = "" if plan.fit else "whether it fits, "
        adds = f"{fits}how long it takes{' and what it costs' if plan.money else ''}"
        lines.append(("probe", f"trains some steps on {plan.device}, and tells {adds}: {probe}", "dim"))
    lines += [("warning", warning, "yellow") for warning in plan.warnings]
    lines += [("no", reason, "bold red") for reason in (*plan.problems, *plan.exceeded)]
    for name, value, style in lines:
        wrapped = textwrap.fill(
            value,
            console.width,
            initial_indent=" " * INDENT,
            subsequent_indent=" " * INDENT,
            break_long_words=False,
            break_on_hyphens=False,
        )
        line = Text.assemble((f"{name:<{INDENT}}", style), wrapped[INDENT:].replace(NBSP, " "))
        console.print(line, soft_wrap=True)  # a long path is not cut
    shown = plan.options if everything else plan.options[:SHOWN]
    if shown:
        console.print()
        console.print(_options(shown, plan))
        more = len(plan.options) - len(shown)
        said = f"USD an hour, read {plan.prices_read}; a training uses one device"
        said += f"; {more} more with --all" if more else ""
        console.print(Text(said, "dim"))


def facts(plan: Plan) -> dict[str, str]:
    """Return the lines of a plan by topic, for the screen and for the report of the run."""
    return dict(_facts(plan))


def count(number: float, unit: str = "") -> str:
    """Return a number with a prefix, as 24.2 M."""
    factor, prefix = next(((factor, prefix) for factor, prefix in PREFIXES if number >= factor), (1.0, ""))
    return f"{number / factor:.3g}{NBSP}{prefix}{unit}".rstrip(NBSP)


def size(amount: float) -> str:
    """Return bytes, as 670 kB."""
    return count(amount, "B")


def seconds(amount: float) -> str:
    """Return a time, as 12.3 ms, 4.5 s, 3.2 min or 5.1 h."""
    if amount < 1:
        return f"{amount * 1e3:.3g}{NBSP}ms"
    if amount < 120:
        return f"{amount:.3g}{NBSP}s"
    if amount < 7200:
        return f"{amount / 60:.3g}{NBSP}min"
    return f"{amount / 3600:.4g}{NBSP}h"


def dollars(amount: float) -> str:
    """Return money, as 12.30 USD."""
    return f"{amount:,.2f}{NBSP}USD" if amount >= 0.01 else f"<{NBSP}0.01{NBSP}USD"


def _facts(plan: Plan) -> Iterator[tuple[str, str]]:
    memory, storage = plan.memory, plan.storage
    yield "model", f"{plan.model}: {plan.parameters:,} parameters"
    yield "examples", ", ".join(f"{name} {rows:,}" for name, rows in plan.rows.items())
    if plan.targets:
        yield "targets", plan.targets
    place = plan.device + ("" if plan.capacity is None else f" ({size(plan.capacity)})")
    batch = _batch(memory.largest_batch(plan.capacity), plan) if plan.capacity else "none"
    yield (
        "memory",
        f"{size(memory.weights)} weights, {size(memory.gradients)} gradients, {size(memory.optimizer)} "
        f"optimizer, about {size(memory.activations + memory.working)} activations with a batch of "
        f"{memory.batch_size:,}"
        + (f"; {FITS[plan.fit]} {place}" if plan.fit else "")
        + (f"; largest batch: {batch}" if plan.capacity else ""),
    )
    not_counted = f", not counted: {', '.join(plan.uncounted)}" if plan.uncounted else ""
    yield (
        "compute",
        f"{count(plan.flops_per_step, 'FLOP')} a step, {count(plan.flops_per_step * plan.steps, 'FLOP')} in "
        f"{plan.steps:,} steps{not_counted}",
    )
    yield (
        "storage",
        f"{size(storage.run)} a run, {size(storage.model)} of it the model, which each version keeps; "
        f"{size(storage.checkpoint)} a checkpoint",
    )
    if plan.train:
        yield "time", _time(plan.train, plan.probed_at)
    if plan.probed:
        device = f", {size(plan.probed.device_memory)} on the device" if plan.probed.device_memory else ""
        yield "probe", f"on {plan.probed.device}, {size(plan.probed.memory)} of memory{device}"
    if money := plan.money:
        cost = f"{_interval(money.train)} for train at " if money.train else ""
        yield "money", f"{cost}{money.hour:,.2f} USD an hour ({money.note})"
    if curve := plan.learning_curve:
        points = ", ".join(f"{one.rows:,}: {format_number(one.error)}" for one in curve.points)
        low_high = [f"({format_number(one.low)} to {format_number(one.high)})" for one in curve.beyond]
        beyond = ", ".join(
            f"{one.rows:,}: {format_number(one.error)} {interval}"
            for one, interval in zip(curve.beyond, low_high, strict=True)
        )
        yield (
            "more data",
            "; ".join(
                filter(
                    None,
                    (
                        points and f"validation, {curve.measure}: {points}",
                        curve.refused or f"expected {beyond}",
                    ),
                )
            ),
        )


def _time(time: TrainTime, probed_at: str | None) -> str:
    low, high = seconds(time.total.low), seconds(time.total.high or time.total.value)
    return (
        f"train {seconds(time.total.value)} ({low} to {high}): start {seconds(time.start)}, compile "
        f"{seconds(time.compile)}, {time.epochs} epochs of {seconds(time.epoch)} (validation "
        f"{seconds(time.validation)}), export {seconds(time.export)}; a step {seconds(time.step)}; "
        f"probed {(probed_at or '')[:16].replace('T', ' ')} UTC"
    )


def _interval(found: Estimate) -> str:
    high = f" to {dollars(found.high)}" if found.high is not None else " or more"
    return f"{dollars(found.value)} ({dollars(found.low)}{high})"


def _batch(largest: int, plan: Plan) -> str:
    """Return about the largest batch that fits, with the two digits that are certain at best."""
    if largest >= plan.rows["train"]:
        return "all examples"
    return f"{int(float(f'{largest:.1e}')):,}" if largest else "none"


def _options(shown: tuple[Option, ...], plan: Plan) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("accelerator", no_wrap=True)
    for name in ("memory", "largest batch", "on demand", "Spot"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for one in shown:
        table.add_row(
            f"{one.accelerator} x{one.count}",
            size(one.memory).replace(NBSP, " "),
            _batch(one.largest_batch, plan),
            *("" if price is None else f"{price:,.2f}" for price in (one.on_demand, one.spot)),
            Text(one.note, "dim"),
        )
    return table
