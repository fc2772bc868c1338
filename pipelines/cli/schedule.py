"""`schedule apply|diff|list|pause|resume|delete|run-now`: runs that recur."""

from typing import TYPE_CHECKING, Annotated

import typer

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
    from modelyard.pipelines.schedule.state import Plan, Scheduler

app = typer.Typer(name="schedule", help="Let the pipeline run by itself.", no_args_is_help=True)
DONE = {
    "create": "There is a schedule of {name} now",
    "replace": "The schedule of {name} is replaced",
    "pause": "The schedule of {name} is paused",
    "resume": "The schedule of {name} starts runs again",
    "nothing": "The schedule of {name} is as the configuration says",
}
PLANNED = {
    "create": "A schedule of {name} would be made",
    "replace": "The schedule of {name} would be replaced",
    "pause": "The schedule of {name} would be paused",
    "resume": "The schedule of {name} would start runs again",
    "nothing": "The schedule of {name} is as the configuration says",
}


@app.command()
def apply(
    config: ConfigFile = None,
    environment: EnvironmentName = "local",
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done; change nothing.")
    ] = False,
    anyway: Anyway = False,
    endpoint: Endpoint = None,
    namespace: KfpNamespace = None,
    output: OutputFormat = Output.TEXT,
) -> None:
    """Make the schedule be what the section `schedule` says.

    As a recurring run of Kubeflow Pipelines; with -e local as a timer of systemd or a line of the crontab.
    Applied again it changes nothing. A run in flight goes on.
    """
    from modelyard.pipelines.config.config import load

    place = pipelines_environment(environment, namespace, overrides or ())
    settings = load(config, overrides or (), store=place.model_store())
    if not anyway:
        from modelyard.pipelines.planning.guard import guard
        from modelyard.pipelines.runners import runs

        guard(settings, place, environment, runs.home())
    scheduler = _scheduler(place, endpoint)
    _show(scheduler.plan(settings) if dry_run else scheduler.apply(settings), output, planned=dry_run)


@app.command()
def diff(
    config: ConfigFile = None,
    environment: EnvironmentName = "local",
    overrides: Overrides = None,
    endpoint: Endpoint = None,
    namespace: KfpNamespace = None,
    output: OutputFormat = Output.TEXT,
) -> None:
    """Show what `apply` would change."""
    apply(config, environment, overrides, True, True, endpoint, namespace, output)


@app.command("list")
def list_(
    environment: EnvironmentName = "local",
    endpoint: Endpoint = None,
    namespace: KfpNamespace = None,
    output: OutputFormat = Output.TEXT,
) -> None:
    """List the schedules that modelyard made."""
    found = _scheduler(pipelines_environment(environment, namespace), endpoint).all()
    if output is Output.JSON:
        emit([one.model_dump(mode="json") for one in found])
    elif found:
        head = ("model", "cron", "time zone", "next", "where", "id")
        rows = [
            (one.name, one.cron, one.time_zone, one.next[0] if one.next else "paused", one.where, one.id)
            for one in found
        ]
        show_rows(rows, head)
    else:
        typer.echo("There are no schedules of modelyard here. `modelyard schedule apply CONFIG` makes one.")


@app.command()
def pause(
    name: ModelName,
    environment: EnvironmentName = "local",
    endpoint: Endpoint = None,
    namespace: KfpNamespace = None,
    output: OutputFormat = Output.TEXT,
) -> None:
    """Start no more runs; one in flight goes on. The next `apply` of a file that does not say so resumes."""
    _scheduler(pipelines_environment(environment, namespace), endpoint).pause(name)
    _done(name, "paused", f"The schedule of {name} is paused.", output)


@app.command()
def resume(
    name: ModelName,
    environment: EnvironmentName = "local",
    endpoint: Endpoint = None,
    namespace: KfpNamespace = None,
    output: OutputFormat = Output.TEXT,
) -> None:
    """Start runs again, from the next time on."""
    _scheduler(pipelines_environment(environment, namespace), endpoint).resume(name)
    _done(name, "resumed", f"The schedule of {name} starts runs again.", output)


@app.command()
def delete(
    name: ModelName,
    environment: EnvironmentName = "local",
    endpoint: Endpoint = None,
    namespace: KfpNamespace = None,
    output: OutputFormat = Output.TEXT,
) -> None:
    """Remove a schedule; a run in flight goes on."""
    _scheduler(pipelines_environment(environment, namespace), endpoint).delete(name)
    _done(name, "deleted", f"The schedule of {name} is removed.", output)


@app.command("run-now")
def run_now(
    name: ModelName,
    environment: EnvironmentName = "local",
    endpoint: Endpoint = None,
    namespace: KfpNamespace = None,
    output: OutputFormat = Output.TEXT,
) -> None:
    """Start a run now, as the schedule would: on this machine, unless one is in flight."""
    place = pipelines_environment(environment, namespace)
    started = _scheduler(place, endpoint).run_now(name)
    if output is Output.JSON:
        emit({"name": name, "started": started})
    elif place.kind == "local":  # the program that starts it leaves it out, and says so nowhere else
        typer.echo(f"A run of {name} is asked for, and starts unless one is in flight: {started}")
    else:
        typer.echo(f"A run of {name} has started: {started}")


def _scheduler(place: "Environment", endpoint: str | None) -> "Scheduler":
    """Return what starts runs in an environment."""
    from rich.console import Console

    if place.kind == "local":
        from modelyard.pipelines.schedule.local.scheduler import find_scheduler

        if endpoint:
            raise typer.BadParameter("This machine has no Kubeflow Pipelines.", param_hint="--endpoint")
        return find_scheduler(place)
    from modelyard.pipelines.compile import lean_kfp

    lean_kfp.load()
    from modelyard.pipelines.runners.kfp.client import connect
    from modelyard.pipelines.schedule.recurring.scheduler import RecurringRuns

    return RecurringRuns(connect(place, endpoint), place, Console(stderr=True))


def _show(plan: "Plan", output: Output, planned: bool) -> None:
    if output is Output.JSON:
        emit({**plan.model_dump(mode="json"), "applied": not planned})
        return
    sentence = (PLANNED if planned else DONE)[plan.action].format(name=plan.name)
    typer.echo(f"{sentence}: {plan.where}.")
    rows = [
        ("change", one.key, f"{_word(one.before)} -> {_word(one.after)}")
        if (one.before, one.after) != (None, None)
        else ("change", one.key, "")
        for one in plan.changes
    ]
    rows += [("next", fire, "") for fire in plan.next] or [("next", "none: it is paused", "")]
    show_rows(rows)
    for note in plan.notes:
        typer.echo(note)


def _done(name: str, state: str, sentence: str, output: Output) -> None:
    emit({"name": name, "state": state}) if output is Output.JSON else typer.echo(sentence)


def _word(value: object) -> str:
    return "none" if value is None else str(value)
