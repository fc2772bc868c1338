"""`schedule apply|list|pause|resume|run-now|delete`: recurring runs on Kubeflow Pipelines."""

from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.components.errors import ConfigError
from modelyard.pipelines.cli.options import (
    Anyway,
    ConfigFile,
    Endpoint,
    EnvironmentName,
    KfpNamespace,
    ModelName,
    Output,
    OutputFormat,
    Overrides,
    emit,
    pipelines_environment,
    show_rows,
)

if TYPE_CHECKING:
    from modelyard.pipelines.environments.environment import Environment
    from modelyard.pipelines.schedule.recurring import RecurringRuns

app = typer.Typer(name="schedule", help="Recurring runs on Kubeflow Pipelines.", no_args_is_help=True)
DONE = {"create": "created", "replace": "replaced", "pause": "paused", "resume": "resumed"}


@app.command()
def apply(
    environment: EnvironmentName,
    config: ConfigFile = None,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change; change nothing.")
    ] = False,
    anyway: Anyway = False,
    endpoint: Endpoint = None,
    namespace: KfpNamespace = None,
    output: OutputFormat = Output.TEXT,
) -> None:
    """Create or replace the recurring run that the section `schedule` describes.

    Shows what differs, and changes nothing when nothing does. Runs in flight go on.
    """
    from modelyard.pipelines.config.config import load

    place = _environment(environment, namespace, overrides)
    settings = load(config, overrides or (), store=place.model_store())
    if not anyway:
        from modelyard.pipelines.planning.guard import guard
        from modelyard.pipelines.runners import runs

        guard(settings, place, environment, runs.home())
    applied = _recurring_runs(place, endpoint).apply(settings, dry_run=dry_run)
    if output is Output.JSON:
        emit({**applied.model_dump(mode="json"), "applied": not dry_run})
        return
    done = f"{'would be ' if dry_run else ''}{DONE.get(applied.action, 'unchanged')}"
    typer.echo(f"Schedule {applied.name} at {applied.endpoint}: {done}.")
    rows = [("change", one.key, f"{_word(one.before)} -> {_word(one.after)}") for one in applied.changes]
    rows += [("next", due, "") for due in applied.next] or [("next", "none: it is paused", "")]
    rows += [("note", note, "") for note in applied.notes]
    show_rows(rows)


@app.command("list")
def list_(
    environment: EnvironmentName,
    endpoint: Endpoint = None,
    namespace: KfpNamespace = None,
    output: OutputFormat = Output.TEXT,
) -> None:
    """List the schedules that modelyard created."""
    schedules = _recurring_runs(_environment(environment, namespace), endpoint)
    found = schedules.list_all()
    if output is Output.JSON:
        emit([one.to_json(schedules.now()) for one in found])
    elif found:
        rows = [(one.name, one.cron, (*one.next(schedules.now()), "paused")[0], one.id) for one in found]
        show_rows(rows, ("model", "cron", "next", "id"))
    else:
        typer.echo("There are no schedules of modelyard. `modelyard schedule apply CONFIG` creates one.")


@app.command()
def pause(
    name: ModelName,
    environment: EnvironmentName,
    endpoint: Endpoint = None,
    namespace: KfpNamespace = None,
    output: OutputFormat = Output.TEXT,
) -> None:
    """Start no more runs, until `resume` or the next `apply`; a run in flight goes on."""
    _recurring_runs(_environment(environment, namespace), endpoint).pause(name)
    _report(name, "paused", output)


@app.command()
def resume(
    name: ModelName,
    environment: EnvironmentName,
    endpoint: Endpoint = None,
    namespace: KfpNamespace = None,
    output: OutputFormat = Output.TEXT,
) -> None:
    """Start runs again, from the next due time on."""
    _recurring_runs(_environment(environment, namespace), endpoint).resume(name)
    _report(name, "resumed", output)


@app.command("run-now")
def run_now(
    name: ModelName,
    environment: EnvironmentName,
    endpoint: Endpoint = None,
    namespace: KfpNamespace = None,
    output: OutputFormat = Output.TEXT,
) -> None:
    """Start a run now, as the schedule would."""
    started = _recurring_runs(_environment(environment, namespace), endpoint).run_now(name)
    if output is Output.JSON:
        emit({"name": name, "started": started})
    else:
        typer.echo(f"{started} has started.")


@app.command()
def delete(
    name: ModelName,
    environment: EnvironmentName,
    endpoint: Endpoint = None,
    namespace: KfpNamespace = None,
    output: OutputFormat = Output.TEXT,
) -> None:
    """Delete a schedule; a run in flight goes on."""
    _recurring_runs(_environment(environment, namespace), endpoint).delete(name)
    _report(name, "deleted", output)


def _environment(name: str, namespace: str | None, overrides: list[str] | None = None) -> "Environment":
    """Return an environment that may have Kubeflow Pipelines."""
    environment = pipelines_environment(name, namespace, overrides or ())
    if environment.kind == "local":
        raise ConfigError(
            f"The environment {name} is this machine, which has no Kubeflow Pipelines and no recurring runs. "
            "Name another one with -e, or let cron or systemd start `modelyard run --skip-unchanged`: "
            "docs/schedule.md shows how."
        )
    return environment


def _recurring_runs(environment: "Environment", endpoint: str | None) -> "RecurringRuns":
    from rich.console import Console

    from modelyard.pipelines.compile import lean_kfp

    lean_kfp.load()
    from modelyard.pipelines.runners.kfp.client import connect
    from modelyard.pipelines.schedule.recurring import RecurringRuns

    return RecurringRuns(connect(environment, endpoint), environment, Console(stderr=True))


def _report(name: str, state: str, output: Output) -> None:
    emit({"name": name, "state": state}) if output is Output.JSON else typer.echo(
        f"Schedule {name}: {state}."
    )


def _word(value: object) -> str:
    return "none" if value is None else str(value)
