"""Progress of a run as a live table or as lines, and the summary of a run that has ended."""

import shlex
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from modelyard.components.artifacts import format_number
from modelyard.components.errors import KilledError, error_classes, pluralize
from modelyard.components.events import Epoch, Event, Resumed, StepChange, Waiting
from modelyard.components.explain.explanation import step_lines
from modelyard.pipelines.cli.failures import Interrupted, print_error
from modelyard.pipelines.cli.options import Output, print_json

if TYPE_CHECKING:
    from modelyard.pipelines.environments.environment import Environment
    from modelyard.pipelines.runners.base import EvaluationSummary, Run, RunSummary, StepStatus

STATE_MARKS = {
    "waiting": ("·", "dim"),
    "running": ("▶", "cyan"),
    "succeeded": ("✓", "green"),
    "failed": ("✗", "red"),
    "skipped": ("–", "dim"),
}
MAX_LOG_LINES = 8
MAX_SLICES = 10
POLL_SECONDS = 0.2  # between reads of new events


def complete(run: "Run", output: Output, leave_stuck: bool = False) -> NoReturn:
    """Show the progress of a run and its summary, and exit with its code.

    Args:
        run: the run; executed if this process started it, followed otherwise.
        output: the format of the summary.
        leave_stuck: do not cancel the run if one of its pods cannot start.
    """
    from modelyard.pipelines import api

    try:
        with show_progress(run, Console(stderr=True)):
            summary = api.finish(run, leave_stuck)
    except KeyboardInterrupt:
        raise Interrupted(run.interrupt_message()) from None
    failure = summary.failure
    if output is Output.JSON:
        print_json(summary.model_dump(mode="json"))
    elif failure:
        show_failure(summary, Console(stderr=True))
        print_error(failure.kind, failure.message, failure.exit_code, as_json=False)
    else:
        show_summary(summary, run, Console())
    raise typer.Exit(failure.exit_code if failure else 0)


@contextmanager
def show_progress(run: "Run", console: Console) -> Iterator[None]:
    """Show the progress of a run during a block: a live table on a terminal, or a line per event."""
    if console.is_terminal:
        with Live(
            get_renderable=lambda: build_steps_table(run),
            console=console,
            refresh_per_second=8,
            redirect_stdout=False,
            redirect_stderr=False,
        ):
            yield
        return
    typer.echo(f"run {run.name}", err=True)
    ended = threading.Event()

    def show_lines() -> None:
        printed_count, has_ended = 0, False
        while not has_ended:
            has_ended = ended.wait(POLL_SECONDS)
            events = run.events()
            for line in filter(None, map(format_event, events[printed_count:])):
                typer.echo(line, err=True)
            printed_count = len(events)

    lines = threading.Thread(target=show_lines, name="progress", daemon=True)
    lines.start()
    try:
        yield
    finally:
        ended.set()
        lines.join()


def format_event(event: Event) -> str | None:
    """Format an event as a line; None if it has nothing to show."""
    text = format_progress(event)
    if isinstance(event, StepChange):
        text = {
            "running": "started",
            "skipped": "skipped",
            "failed": f"stopped after {event.seconds:.1f} s",  # by an error or by Ctrl-C
            "succeeded": "cached" if event.cached else f"succeeded in {event.seconds:.1f} s",
        }.get(event.state, "")
    return f"{event.step:<12}{text}" if text else None


def format_progress(event: Event) -> str:
    """Format an event that a running step reported."""
    if isinstance(event, Waiting):
        return f"waiting: {event.reason}"
    if isinstance(event, Resumed):
        return f"resumes from the checkpoint of epoch {event.epoch} of {event.epochs}"
    if isinstance(event, Epoch):
        numbers = "  ".join(f"{name} {format_number(value)}" for name, value in event.metrics.items())
        return f"epoch {event.epoch} of {event.epochs}  {numbers}  ({event.seconds:.1f} s)"
    return ""


def build_steps_table(run: "Run") -> Group:
    """Return the steps with their states and times, and the last message of the running step."""
    table, steps = Table.grid(padding=(0, 2)), run.steps()
    for step in steps:
        mark, style = STATE_MARKS[step.state]
        table.add_row(Text(mark, style), Text(step.name, style), Text(_format_time(step), "dim"))
    running = next((step.name for step in steps if step.state == "running"), None)
    messages = [event for event in run.events() if event.step == running and format_progress(event)]
    resume_events = [event for event in messages[:-1] if isinstance(event, Resumed)][:1]
    line = run.last_line if running else ""
    lines = [*map(format_progress, resume_events), format_progress(messages[-1]) if messages else line]
    return Group(table, *(Text(line, "dim", no_wrap=True, overflow="ellipsis") for line in lines))


def _format_time(step: "StepStatus") -> str:
    if step.cached:
        return "cached"
    return f"{step.seconds:.1f} s" if step.state in ("running", "succeeded", "failed") else ""


def show_summary(summary: "RunSummary", run: "Run", console: Console) -> None:
    """Print the summary of a run that succeeded."""
    rows = {"run": summary.run, "decision": f"{summary.decision}: {summary.reason}"}
    if summary.resumed_after:
        rows["training"] = f"resumed from the checkpoint of epoch {summary.resumed_after}"
    if summary.version:
        rows["version"] = f"{summary.version} of {summary.model}"
    if summary.evaluation:
        rows |= _format_metrics(summary.evaluation)
    lines = []
    for rule in summary.rules:
        value = "unknown" if rule.value is None else format_number(rule.value)
        lines.append(f"{'✓' if rule.passed else '✗'} {rule.rule} {format_number(rule.limit)}: {value}")
    if lines:
        rows["gate"] = f"\n{'':<12}".join(lines)
    if summary.notes:
        rows["note"] = f"\n{'':<12}".join(summary.notes)
    if prediction := summary.prediction:
        note = f" ({prediction.note})" if prediction.note else ""
        rows["prediction"] = f"{prediction.text}{note} by version {prediction.version} over HTTP"
    if summary.report:
        rows["report"] = summary.report
    rows["store"] = summary.store
    if summary.champion and not run.environment.on_cluster:
        rows["serve with"] = build_serve_command(summary.model, run.config()["store"])
    elif summary.champion:
        rows["served at"] = find_served_url(summary.model, run.environment)
    for name, value in rows.items():  # no wrapping: paths and commands are copied
        console.print(Text.assemble((f"{name:<12}", "dim"), value), soft_wrap=True)


def _format_metrics(evaluation: "EvaluationSummary") -> dict[str, str]:
    """Return the metrics of candidate and champion, and the recall of each class, lowest first."""
    comparison = evaluation.same_examples
    candidate = comparison.candidate if comparison else evaluation.values
    examples = comparison.examples if comparison else evaluation.examples
    columns = [
        "candidate (95 % interval)",
        *([f"version {evaluation.compared_with}"] if comparison else []),
        "baseline",
    ]
    total = f" of {evaluation.examples:,}" if examples < evaluation.examples else ""
    table = [[f"{examples:,}{total} test examples", *columns]]
    for name, metric in candidate.items():
        value, low, high = map(format_number, (metric.value, metric.low, metric.high))
        champion = [format_number(comparison.champion[name].value)] if comparison else []
        baseline = format_number(evaluation.baseline[name]) if name in evaluation.baseline else ""
        table.append([name, f"{value} ({low} to {high})", *champion, baseline])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(map(str.ljust, cells, widths)).rstrip() for cells in table]
    facts = {"metrics": f"\n{'':<12}".join(lines)}
    recalls = sorted(
        (slice_.values["recall"].value, slice_.name, slice_.examples)
        for slice_ in evaluation.slices
        if "recall" in slice_.values
    )
    if recalls:
        lowest = ", ".join(
            f"{name}: {value:.3f} ({pluralize(examples, 'example')})"
            for value, name, examples in recalls[:MAX_SLICES]
        )
        more = len(recalls) - MAX_SLICES
        facts["recall"] = f"lowest: {lowest}; the others ({more}) are not lower" if more > 0 else lowest
    return facts


def find_served_url(name: str, environment: "Environment") -> str:
    """Return the URL of a model for clients of a cluster."""
    from modelyard.components.deploy.platforms import find_platform_class

    if url := environment.serving.urls.get(name):
        return f"{url}/v1/models/{name}"
    target = environment.target(needs_image=False)
    return f"{find_platform_class(target).client_url(name, target)}/v1/models/{name} (inside the cluster)"


def build_serve_command(name: str, store: Mapping[str, Any]) -> str:
    """Return the command that serves the champion of a model from the section `store`."""
    keys = [key for key in ("endpoint", "user_project") if store.get(key)]
    variables = [f"MODELYARD_STORE__{key.upper()}={store[key]}" for key in keys]
    return shlex.join([*variables, "modelyard", "serve", name, "--store", store["url"]])


def show_failure(summary: "RunSummary", console: Console) -> None:
    """Print the path of the failed step's log, and its last lines if the error does not give the reason."""
    failure = summary.failure
    if failure is None or failure.log is None:
        return
    if failure.kind not in error_classes() or failure.kind == KilledError.__name__:
        lines = Path(failure.log).read_text(encoding="utf-8", errors="replace").splitlines()
        console.print(f"last lines of {failure.step}:", style="dim")
        for line in list(step_lines(lines))[-MAX_LOG_LINES:]:
            console.print(f"  {line}", style="dim", markup=False, highlight=False, soft_wrap=True)
    console.print(f"log of {failure.step}: {failure.log}", style="dim", markup=False, soft_wrap=True)
