"""`runs list|show|compare|logs|cancel|retry`, `explain` and `report`, for runs of all runners."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelyard.pipelines.cli.help import Group
from modelyard.pipelines.cli.options import (
    NO_VALUE,
    LeaveStuck,
    Output,
    RunName,
    StoreUrl,
    Wait,
    format_cell,
    format_time,
    log,
    open_store,
    print_json,
    print_list,
    print_result,
    print_rows,
    print_table,
    with_run_options,
)

if TYPE_CHECKING:
    from modelyard.pipelines.runners.base import Run, RunInfo
    from modelyard.pipelines.runners.select import RunScope

app = Group(name="runs", help="List, show, compare, cancel and retry runs.", no_args_is_help=True)


@app.command("list")
@with_run_options
def list_(
    scope: "RunScope",
    output: Output,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="List only the runs of this model.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Maximum number of runs.")] = 20,
) -> None:
    """List the latest runs, newest first."""
    from modelyard.pipelines import api

    infos = api.list_runs(
        scope.environment_name,
        model,
        limit,
        endpoint=scope.endpoint,
        namespace=scope.namespace,
        warn=lambda message: log(f"note: {message}"),
    )
    head = ("run", "started (UTC)", "model", "data", "state", "decision", "metric", "version", "environment")
    subject = f"runs of {model}" if model else "runs"
    empty = (
        f"There are no {subject}. Start one with `modelyard run`, or set the environment of the runs with -e."
    )
    print_list(
        output, [info.model_dump(mode="json") for info in infos], list(map(_format_row, infos)), head, empty
    )


@app.command("show")
@with_run_options
def show_(
    scope: "RunScope", output: Output, name: RunName, wait: Wait = False, leave_stuck: LeaveStuck = False
) -> None:
    """Show a run and its steps."""
    from rich.console import Console

    from modelyard.pipelines.cli.progress import build_steps_table, complete, show_summary
    from modelyard.pipelines.runners.base import read_summary

    run = _open_run(scope, name)
    if wait:
        complete(run, output, leave_stuck=leave_stuck)
    steps, info = run.steps(), run.info()
    if output is Output.JSON:
        steps_json = [step.model_dump(mode="json") for step in steps]
        print_json({**info.model_dump(mode="json"), "steps": steps_json})
        return
    print_rows(list(_format_facts(info).items()))
    print_table(build_steps_table(run), Console())
    summary = read_summary(run.folder)
    if summary and summary.state == info.state == "succeeded":  # otherwise the run was retried
        show_summary(summary, run, Console())
    elif info.state in ("failed", "cancelled") and (failure := run.failure()):
        typer.echo(f"reason   {failure.message}")


@app.command()
@with_run_options
def compare(
    scope: "RunScope",
    output: Output,
    first: Annotated[str, typer.Argument(metavar="A", help="Name or ID of a run.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Name or ID of another run.")],
) -> None:
    """Compare the results, metrics and configurations of two runs."""
    from modelyard.pipelines.runners.differences import compare_runs

    comparison = compare_runs(_open_run(scope, first), _open_run(scope, second))
    if output is Output.JSON:
        print_json(comparison.model_dump(mode="json"))
        return
    changes = (*comparison.results, *comparison.metrics, *comparison.differences)
    rows = [
        (change.key, _format_value(change.key, change.before), _format_value(change.key, change.after))
        for change in changes
    ]
    # a run without a gate has no values for the keys of the gate
    print_rows(
        [row for row in rows if row[1:] != (NO_VALUE, NO_VALUE)], ("", *(run.name for run in comparison.runs))
    )
    if not comparison.differences:
        typer.echo("The configurations are the same.")


@app.command()
@with_run_options
def logs(
    scope: "RunScope",
    output: Output,
    name: RunName,
    step: Annotated[
        str | None, typer.Argument(metavar="STEP", help="Name of a step. Default: all steps.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Follow the log until the run ends.")
    ] = False,
    show_all: Annotated[
        bool, typer.Option("--all", help="Include the lines of Kubeflow Pipelines and Argo.")
    ] = False,
) -> None:
    """Print the logs of the steps of a run.

    Works even if the pods of the run were deleted.
    """
    from modelyard.components.explain.explanation import step_lines
    from modelyard.pipelines.cli.streams import get_write_error
    from modelyard.pipelines.steps import STEPS

    logs = _open_run(scope, name).logs((step,) if step else tuple(STEPS), follow)
    steps = ((step_name, lines if show_all else step_lines(lines)) for step_name, lines in logs)
    if output is Output.JSON:
        print_json([{"step": step_name, "lines": list(lines)} for step_name, lines in steps])
        return
    empty = True
    for step_name, lines in steps:
        empty = False
        if not step:
            typer.echo(typer.style(f"{step_name}:", bold=True))
        for line in lines:
            typer.echo(line)
            if get_write_error():
                return
    if empty:
        typer.echo("There is no log: no step has started, or all outputs came from the cache.", err=True)


@app.command()
@with_run_options
def cancel(scope: "RunScope", output: Output, name: RunName) -> None:
    """Cancel a run. Versions that it published are kept."""
    run = _open_run(scope, name)
    run.cancel()
    _show_state(run, "cancelled", "was cancelled", output)


@app.command()
@with_run_options
def retry(scope: "RunScope", output: Output, name: RunName, wait: Wait = False) -> None:
    """Retry the failed steps of a run.

    On Kubeflow Pipelines, the same run continues. For a run that `modelyard run` started, this command
    executes a new run, which takes finished steps from the cache, and waits for its end.
    """
    from modelyard.pipelines.cli.progress import complete

    new_run = _open_run(scope, name).retry()
    if wait or new_run.in_this_process:
        complete(new_run, output)
    _show_state(new_run, "retried", "was started again", output)


@with_run_options
def explain(
    scope: "RunScope",
    output: Output,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN", help="Name of the run, or its ID on Kubeflow Pipelines. Default: the latest run."
        ),
    ] = None,
) -> None:
    """Explain how a run ended and what to change.

    Works even if the pods of the run were deleted.
    """
    explanation = _open_run(scope, name).explain()
    print_result(output, explanation.json(), explanation.text)


@with_run_options
def report(
    scope: "RunScope",
    output: Output,
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Name of a run or a model. Default: the latest run."),
    ] = None,
    version: Annotated[
        int | None,
        typer.Argument(metavar="VERSION", min=1, help="Version of the model. Default: the champion."),
    ] = None,
    browse: Annotated[bool, typer.Option("--open", help="Open the report in the browser.")] = False,
    store: StoreUrl = None,
) -> None:
    """Print the path of the report of a run or of a model's version."""
    from modelyard.components.errors import NotFoundError
    from modelyard.pipelines.runners.results import fetch_run_report, fetch_version_report
    from modelyard.pipelines.runners.select import is_run_name

    if name is None or is_run_name(name):
        run = _open_run(scope, name)
        path, origin = fetch_run_report(run), dict[str, Any](run=run.name)
    else:
        models = open_store(store, scope.environment_name or "local")
        if not models.versions(name):
            raise NotFoundError(
                f"There is no run {name}, and no model {name} in {models.url}. `modelyard runs list` and "
                "`modelyard models list` show their names."
            )
        path, number = fetch_version_report(models, name, version)
        origin = {"model": name, "version": number}
    print_result(output, {**origin, "report": str(path)}, str(path))
    if browse:
        typer.launch(Path(path).as_uri())


def _open_run(scope: "RunScope", name: str | None) -> "Run":
    from modelyard.pipelines import api

    return api.open_run(name, scope.environment_name, endpoint=scope.endpoint, namespace=scope.namespace)


def _show_state(run: "Run", state: str, text: str, output: Output) -> None:
    print_result(output, {"run": run.name, "id": run.info().id, "state": state}, f"{run.name} {text}.")


def _format_value(key: str, value: Any) -> str:
    if value and key in ("started", "seconds"):
        return f"{format_time(value)} UTC" if key == "started" else f"{value:.0f}"
    return NO_VALUE if value in ({}, []) else format_cell(value)


def _format_row(info: "RunInfo") -> tuple[str, ...]:
    values = (info.model, info.data, info.state, info.decision, _format_metric(info), info.version)
    return (info.name, format_time(info.started), *map(format_cell, (*values, info.environment)))


def _format_facts(info: "RunInfo") -> dict[str, str]:
    name = info.name if info.id == info.name else f"{info.name} ({info.id})"
    execution = {"local": "on this machine", "pods": "as pods", "kfp": "on Kubeflow Pipelines"}[info.runner]
    facts = {
        "run": name,
        "state": info.state,
        "started": f"{format_time(info.started)} UTC",
        "seconds": info.seconds and f"{info.seconds:.0f}",
        "environment": f"{info.environment}, {execution}",
        "model": info.model,
        "data": info.data,
        "decision": info.decision,
        "metric": _format_metric(info),
        "version": info.version,
        "schedule": info.schedule,
    }
    return {key: str(value) for key, value in facts.items() if value}


def _format_metric(info: "RunInfo") -> str | None:
    return f"{info.metric} {format_cell(info.value)}" if info.metric else None
