"""Prints a plan on one screen, 80 columns wide, and formats its values for the report of a run."""

import textwrap
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from modelyard.components.artifacts import format_number
from modelyard.components.train.measurement import CurvePoint, LearningCurve
from modelyard.pipelines.planning.plan import AcceleratorOption, Estimate, Plan, TrainTime

MAX_OPTIONS = 5
FITS = {"fits": "fits into", "uncertain": "may not fit into", "does not fit": "does not fit into"}
INDENT = 11
NBSP = "\N{NO-BREAK SPACE}"  # between a number and its unit, where textwrap does not break lines
PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def print_plan(plan: Plan, console: Console, all_options: bool, probe_command: str) -> None:
    """Print a plan, with all accelerators or the first five; `probe_command` plans with a probe."""
    lines = [(name, value, "dim") for name, value in format_facts(plan).items()]
    if not plan.train and plan.fit != "does not fit":
        fits = "" if plan.fit else "whether the model fits, "
        cost = " and the cost" if plan.cost else ""
        lines.append(
            ("probe", f"not run. It measures {fits}the time{cost} on {plan.device}: {probe_command}", "dim")
        )
    lines += [("warning", warning, "yellow") for warning in plan.warnings]
    lines += [("error", reason, "bold red") for reason in (*plan.errors, *plan.exceeded_limits)]
    for name, value, style in lines:
        _print_line(name, value, style, console)
    if options := plan.options if all_options else plan.options[:MAX_OPTIONS]:
        console.print()
        _print_options(options, plan, console)


def _print_line(name: str, value: str, style: str, console: Console) -> None:
    """Print a value, wrapped and indented, after its name."""
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


def _print_options(options: Sequence[AcceleratorOption], plan: Plan, console: Console) -> None:
    """Print the table of accelerators, without the spaces with which Rich fills its lines."""
    for segments in console.render_lines(_build_options_table(options, plan), pad=False):
        line = Text.assemble(*((segment.text, segment.style or "") for segment in segments))
        line.rstrip()
        console.print(line)
    hidden_count = len(plan.options) - len(options)
    note = f"USD per hour as of {plan.price_date}; training uses one device"
    console.print(Text(note + (f"; {hidden_count} more with --all" if hidden_count else ""), "dim"))


def format_facts(plan: Plan) -> dict[str, str]:
    """Return the lines of a plan by topic, for the screen and for the report of the run."""
    return dict(_iterate_facts(plan))


def format_count(number: float, unit: str = "") -> str:
    """Format a number with a prefix, such as 24.2 M."""
    factor, prefix = next(((factor, prefix) for factor, prefix in PREFIXES if number >= factor), (1.0, ""))
    return f"{number / factor:.3g}{NBSP}{prefix}{unit}".rstrip(NBSP)


def format_size(amount: float) -> str:
    """Format bytes, such as 670 kB."""
    return format_count(amount, "B")


def format_seconds(amount: float) -> str:
    """Format a time, such as 12.3 ms, 4.5 s, 3.2 min or 5.1 h."""
    if amount < 1:
        return f"{amount * 1e3:.3g}{NBSP}ms"
    if amount < 120:
        return f"{amount:.3g}{NBSP}s"
    if amount < 7200:
        return f"{amount / 60:.3g}{NBSP}min"
    return f"{amount / 3600:.4g}{NBSP}h"


def format_dollars(amount: float) -> str:
    """Format an amount of money, such as 12.30 USD."""
    return f"{amount:,.2f}{NBSP}USD" if amount >= 0.01 else f"<{NBSP}0.01{NBSP}USD"


def _iterate_facts(plan: Plan) -> Iterator[tuple[str, str]]:
    storage = plan.storage
    yield "model", f"{plan.model}: {plan.parameters:,} parameters"
    yield "examples", ", ".join(f"{name} {count:,}" for name, count in plan.examples.items())
    if plan.targets:
        yield "targets", plan.targets
    yield "memory", _format_memory(plan)
    uncounted = f", without {', '.join(plan.uncounted)}" if plan.uncounted else ""
    yield (
        "compute",
        f"{format_count(plan.flops_per_step, 'FLOP')} per step, "
        f"{format_count(plan.flops_per_step * plan.steps, 'FLOP')} in {plan.steps:,} steps{uncounted}",
    )
    yield (
        "storage",
        f"{format_size(storage.run)} per run, of which {format_size(storage.model)} is stored per version; "
        f"{format_size(storage.checkpoint)} per checkpoint",
    )
    if plan.train:
        yield "time", _format_time(plan.train, plan.probed_at)
    if plan.probe:
        device_memory = plan.probe.device_memory
        device = f", {format_size(device_memory)} on the device" if device_memory else ""
        yield "probe", f"on {plan.probe.device}, used {format_size(plan.probe.memory)} of memory{device}"
    if cost := plan.cost:
        train = f"{_format_cost(cost.train)} for train at " if cost.train else ""
        yield "cost", f"{train}{cost.per_hour:,.2f} USD per hour ({cost.note})"
    if curve := plan.learning_curve:
        yield "more data", _format_curve(curve)


def _format_memory(plan: Plan) -> str:
    """Format the memory of a step, whether it fits, and the largest batch that does."""
    memory = plan.memory
    text = (
        f"{format_size(memory.weights)} weights, {format_size(memory.gradients)} gradients, "
        f"{format_size(memory.optimizer)} optimizer, about "
        f"{format_size(memory.activations + memory.largest_operation)} activations with a batch of "
        f"{memory.batch_size:,}"
    )
    if plan.fit:
        text += f"; {FITS[plan.fit]} {plan.device}"
    if plan.capacity:
        largest = _format_batch(memory.largest_batch(plan.capacity), plan)
        text += f" ({format_size(plan.capacity)}); largest batch: {largest}"
    return text


def _format_curve(curve: LearningCurve) -> str:
    def format_point(point: CurvePoint) -> str:
        return f"{point.examples:,}: {format_number(point.error)}"

    measured_points = ", ".join(map(format_point, curve.points))
    expected_points = ", ".join(
        f"{format_point(point)} ({format_number(point.low)} to {format_number(point.high)})"
        for point in curve.extrapolated
    )
    parts = [f"validation, {curve.measure}: {measured_points}"] if measured_points else []
    return "; ".join([*parts, curve.reason or f"expected {expected_points}"])


def _format_time(time: TrainTime, probed_at: str | None) -> str:
    low, high = format_seconds(time.total.low), format_seconds(time.total.high or time.total.value)
    return (
        f"train {format_seconds(time.total.value)} ({low} to {high}): start {format_seconds(time.start)}, "
        f"compile {format_seconds(time.compile)}, {time.epochs} epochs of {format_seconds(time.epoch)} "
        f"(validation {format_seconds(time.validation)}), export {format_seconds(time.export)}; step "
        f"{format_seconds(time.step)}; probe of {(probed_at or '')[:16].replace('T', ' ')} UTC"
    )


def _format_cost(cost: Estimate) -> str:
    high = f" to {format_dollars(cost.high)}" if cost.high is not None else " or more"
    return f"{format_dollars(cost.value)} ({format_dollars(cost.low)}{high})"


def _format_batch(largest: int, plan: Plan) -> str:
    """Format the largest batch that fits, with two digits because it is an estimate."""
    if largest >= plan.examples["train"]:
        return "all examples"
    return f"{int(float(f'{largest:.1e}')):,}" if largest else "none"


def _build_options_table(options: Sequence[AcceleratorOption], plan: Plan) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("accelerator", no_wrap=True)
    for name in ("memory", "largest batch", "on demand", "Spot"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for option in options:
        table.add_row(
            f"{option.accelerator} x{option.count}",
            format_size(option.memory).replace(NBSP, " "),
            _format_batch(option.largest_batch, plan),
            *("" if price is None else f"{price:,.2f}" for price in (option.on_demand, option.spot)),
            Text(option.note, "dim"),
        )
    return table
