"""`schedule apply|list|pause|resume|run-now|delete`: recurring runs on Kubeflow Pipelines."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.pipelines.cli.help import Group
from modelyard.pipelines.cli.options import (
    Anyway,
    ConfigFile,
    ModelName,
    Output,
    Overrides,
    print_json,
    print_list,
    print_result,
    print_rows,
    with_kfp_options,
)

if TYPE_CHECKING:
    from rich.console import Console

    from modelyard.pipelines.runners.select import RunScope
    from modelyard.pipelines.schedule.recurring import RecurringRuns

app = Group(name="schedule", help="Manage recurring runs on Kubeflow Pipelines.", no_args_is_help=True)
RESULTS = {"create": "created", "replace": "replaced", "pause": "paused", "resume": "resumed"}


@app.command()
@with_kfp_options
def apply(
    scope: "RunScope",
    output: Output,
    config: ConfigFile = None,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the changes without applying them.")
    ] = False,
    anyway: Anyway = False,
) -> None:
    """Create or replace the recurring run of a model.

    The section `schedule` of the configuration defines the recurring run. Shows the changes from the existing
    one. Active runs continue.
    """
    from rich.console import Console

    from modelyard.pipelines import api

    scope, console = replace(scope, overrides=overrides or ()), Console(stderr=True)
    _, uploads = api.find_server_and_uploads(scope, config, budget=None, skip_checks=anyway)
    schedule = _recurring_runs(scope, console).apply(uploads, dry_run=dry_run)
    if output is Output.JSON:
        print_json({**schedule.model_dump(mode="json"), "applied": not dry_run})
        return
    result = f"{'would be ' if dry_run else ''}{RESULTS.get(schedule.action, 'unchanged')}"
    typer.echo(f"Schedule {schedule.name} at {schedule.endpoint}: {result}.")
    rows = [("change", str(change)) for change in schedule.changes]
    rows += [("next", due) for due in schedule.next] or [("next", "none: paused")]
    rows += [("note", note) for note in schedule.notes]
    print_rows(rows)


@app.command("list")
@with_kfp_options
def list_(scope: "RunScope", output: Output) -> None:
    """List the recurring runs that modelyard created."""
    schedules = _recurring_runs(scope)
    recurring_runs = schedules.list_all()
    now = schedules.now()
    rows = [
        (item.name, item.cron, (*item.next_due_times(now), "paused")[0], item.id) for item in recurring_runs
    ]
    empty = "There are no schedules. Create one with `modelyard schedule apply CONFIG`."
    values = [item.to_json(now) for item in recurring_runs]
    print_list(output, values, rows, ("model", "cron", "next", "id"), empty)


@app.command()
@with_kfp_options
def pause(scope: "RunScope", output: Output, name: ModelName) -> None:
    """Pause a schedule until `resume` or the next `apply`. Active runs continue."""
    _recurring_runs(scope).pause(name)
    print_result(output, {"name": name, "state": "paused"}, f"Schedule {name}: paused.")


@app.command()
@with_kfp_options
def resume(scope: "RunScope", output: Output, name: ModelName) -> None:
    """Resume a paused schedule."""
    _recurring_runs(scope).resume(name)
    print_result(output, {"name": name, "state": "resumed"}, f"Schedule {name}: resumed.")


@app.command("run-now")
@with_kfp_options
def run_now(scope: "RunScope", output: Output, name: ModelName) -> None:
    """Start a run of the schedule now."""
    run = _recurring_runs(scope).run_now(name)
    print_result(output, {"name": name, "run": run}, f"Run {run} started.")


@app.command()
@with_kfp_options
def delete(scope: "RunScope", output: Output, name: ModelName) -> None:
    """Delete a schedule. Active runs continue."""
    _recurring_runs(scope).delete(name)
    print_result(output, {"name": name, "state": "deleted"}, f"Schedule {name}: deleted.")


def _recurring_runs(scope: "RunScope", console: "Console | None" = None) -> "RecurringRuns":
    from rich.console import Console

    from modelyard.pipelines.compile import lean_kfp

    lean_kfp.load()
    from modelyard.pipelines.runners.select import create_kfp_runner
    from modelyard.pipelines.schedule.recurring import RecurringRuns

    server = create_kfp_runner(scope)
    return RecurringRuns(server.backend, server.environment, console or Console(quiet=True))
