"""A run while it works and when it has ended: the live table of its steps, and the summary."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from modelyard.components.errors import BackendError
from modelyard.pipelines.cli.failures import INTERRUPTED, report
from modelyard.pipelines.cli.options import KfpOptions, Output, emit

if TYPE_CHECKING:
    from modelyard.pipelines.config.config import Config
    from modelyard.pipelines.environments.environment import Environment
    from modelyard.pipelines.runners.kfp.client import Backend
    from modelyard.pipelines.runners.local.execution import LocalExecution
    from modelyard.pipelines.runners.runs import RunSummary, Step

MARKS = {
    "waiting": ("·", "dim"),
    "running": ("▶", "cyan"),
    "succeeded": ("✓", "green"),
    "failed": ("✗", "red"),
    "skipped": ("–", "dim"),
}
LAST_LINES = 8


def run_with_table(
    config: "Config", environment: "Environment", options: Mapping[str, bool | int], console: Console
) -> "RunSummary":
    """Run the pipeline here or in pods, and show its steps on `console` while it works."""
    with console.status("starting"):
        from modelyard.pipelines.compile import lean_kfp
        from modelyard.pipelines.runners import runs

        lean_kfp.load()
        from modelyard.pipelines.compile.uploads import gather
        from modelyard.pipelines.planning import comparison

        kind = _kind(environment)
        uploads = gather(config, environment)
    uploads.send(console)
    plan_key = comparison.identity(uploads.config, environment)
    with runs.start(runs.home()) as folder:
        run = kind(uploads.config, folder, environment, options)
        with Live(
            get_renderable=lambda: steps_table(run.log),
            console=console,
            refresh_per_second=8,
            redirect_stdout=False,
            redirect_stderr=False,
        ):
            summary = run()
        comparison.keep(folder, plan_key, summary)
        return summary


def _kind(environment: "Environment") -> "type[LocalExecution]":
    """Return the kind of run; a cluster's client takes a while to import."""
    if environment.kind == "local":
        from modelyard.pipelines.runners.local.execution import LocalExecution

        return LocalExecution
    from modelyard.pipelines.runners.pods.execution import PodExecution

    return PodExecution


class Progress(Protocol):
    """How a run goes."""

    last_line: str

    def steps(self) -> tuple["Step", ...]:
        """Return the current state of every step."""


def steps_table(log: Progress) -> Group:
    """Return the steps with their states and times, and what the running one said last."""
    table = Table.grid(padding=(0, 2))
    for step in log.steps():
        mark, style = MARKS[step.state]
        seconds = (
            "cached"
            if step.cached
            else f"{step.seconds:.1f} s"
            if step.state in ("running", "succeeded", "failed")
            else ""
        )
        table.add_row(Text(mark, style), Text(step.name, style), Text(seconds, "dim"))
    running = any(step.state == "running" for step in log.steps())
    said = log.last_line if running and not log.last_line.startswith("[KFP") else ""
    return Group(table, Text(said, "dim", no_wrap=True, overflow="ellipsis"))


def follow(
    backend: "Backend",
    run: Any,
    environment: "Environment",
    kfp: KfpOptions,
    leave_stuck: bool,
    plan_key: str | None = None,
) -> None:
    """Follow a run to its end, show its results, and end with its exit code.

    Ctrl-C ends this command and not the run.

    Args:
        backend: the server.
        run: the run, as the server gives it.
        environment: where it runs.
        kfp: the options of the command.
        leave_stuck: do not cancel it when one of its pods cannot start.
        plan_key: what connects it with its plan; None when that is not known.
    """
    again = kfp.follow_command(run.display_name)
    try:
        from modelyard.pipelines.planning import comparison
        from modelyard.pipelines.runners import runs
        from modelyard.pipelines.runners.kfp.following import Following

        following = Following(backend, run, environment, leave_stuck)
        with Live(
            get_renderable=lambda: steps_table(following),
            console=Console(stderr=True),
            refresh_per_second=8,
            redirect_stdout=False,
            redirect_stderr=False,
        ):
            summary = following()
        comparison.keep(runs.of_pipelines(summary.run), plan_key, summary)
        conclude(summary, None, environment, kfp.output)
    except KeyboardInterrupt:
        message = f"Ctrl-C does not end the run {run.display_name}. Follow it: {again}"
        raise typer.Exit(report("Interrupted", message, INTERRUPTED, kfp.output is Output.JSON)) from None
    except BackendError as error:
        raise BackendError(f"{error} The run {run.display_name} goes on. Follow it: {again}") from error


def show_once(backend: "Backend", run: Any, environment: "Environment", output: Output) -> None:
    """Show the current state of a run."""
    from modelyard.pipelines.runners.kfp.following import Following
    from modelyard.pipelines.runners.kfp.runs import record

    following = Following(backend, run, environment)
    following.look()
    shown = record(run)
    if output is Output.JSON:
        steps = [step.model_dump(mode="json") for step in following.steps()]
        emit({**shown.model_dump(mode="json"), "steps": steps})
        return
    console = Console()
    console.print(
        f"{shown.name}: {shown.state}, started {shown.created_at:%Y-%m-%d %H:%M:%S} UTC, "
        f"{shown.seconds:.0f} s, {shown.id}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(steps_table(following))


def conclude(
    summary: "RunSummary", config: "Config | None", environment: "Environment", output: Output
) -> NoReturn:
    """Tell how a run ended, and end with its exit code.

    Args:
        summary: of the run.
        config: its configuration, if it ran on this machine.
        environment: where it ran.
        output: for whom.
    """
    failure = summary.failure
    if output is Output.JSON:
        emit(summary.model_dump(mode="json"))
    elif failure:
        show_failure(summary, Console(stderr=True))
        report(failure.kind, failure.message, failure.exit_code, as_json=False)
    else:
        show(summary, config, environment, Console())
    raise typer.Exit(failure.exit_code if failure else 0)


def show(
    summary: "RunSummary", config: "Config | None", environment: "Environment", console: Console
) -> None:
    """Print the short summary of a run that succeeded."""
    rows = {"decision": f"{summary.decision}: {summary.reason}"}
    if summary.version:
        rows["version"] = f"{summary.version} of {summary.model}"
    if metrics := summary.metrics:
        low, high = metrics.accuracy_interval
        rows["accuracy"] = (
            f"{metrics.accuracy:.4f}  (95 % interval {low:.4f} to {high:.4f}, {metrics.rows} test rows)"
        )
    if answer := summary.prediction:
        rows["prediction"] = (
            f"version {answer.version} says {answer.label} ({answer.probability:.3f}) over HTTP"
        )
    if summary.report:
        rows["report"] = summary.report
    rows["store"] = summary.store
    if summary.champion and config and environment.kind == "local":
        rows["serve it"] = serve_command(summary.model, config)
    elif summary.champion:
        rows["served at"] = served_at(summary.model, environment)
    for name, value in rows.items():  # whole lines: paths and commands are there to be copied
        console.print(Text.assemble((f"{name:<12}", "dim"), value), soft_wrap=True)


def served_at(name: str, environment: "Environment") -> str:
    """Return where clients of a cluster find a model."""
    from modelyard.components.deploy.settings import PORT

    servers = environment.serving
    if url := servers.urls.get(name):
        return f"{url}/v1/models/{name}"
    return f"http://{name}.{servers.namespace}:{PORT}/v1/models/{name} (inside the cluster)"


def serve_command(name: str, config: "Config") -> str:
    """Return the command that serves the model's champion."""
    endpoint = [f"MODELYARD_STORE__ENDPOINT={config.store.endpoint}"] if config.store.endpoint else []
    return shlex.join([*endpoint, "modelyard", "serve", name, "--store", config.store.url])


def show_failure(summary: "RunSummary", console: Console) -> None:
    """Print the last lines of the failed step's log and where the whole of it is."""
    from modelyard.components.explain.explanation import step_lines

    failure = summary.failure
    if failure is None or failure.log is None:
        return
    lines = Path(failure.log).read_text(encoding="utf-8", errors="replace").splitlines()
    said = list(step_lines(lines))
    console.print(f"last lines of {failure.step}:", style="dim")
    for line in said[-LAST_LINES:]:
        console.print(f"  {line}", style="dim", markup=False, highlight=False, soft_wrap=True)
    console.print(f"whole log: {failure.log}", style="dim", markup=False, soft_wrap=True)
