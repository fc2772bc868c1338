"""`runs list|show|cancel|retry`, `logs`, `explain`: runs on KFP; `explain` also for runs of this machine."""

from typing import Annotated

import typer

from modelyard.pipelines.cli.options import (
    Endpoint,
    EnvironmentName,
    KfpNamespace,
    KfpOptions,
    LeaveStuck,
    Output,
    OutputFormat,
    RunName,
    Wait,
    emit,
    on_kfp,
    pipelines_environment,
    show_rows,
)

app = typer.Typer(name="runs", help="Look at runs on Kubeflow Pipelines, and end them.", no_args_is_help=True)


@app.command("list")
@on_kfp
def list_(
    kfp: KfpOptions,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="Of this model only.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many at most, the latest first.")] = 20,
) -> None:
    """List the latest runs."""
    from modelyard.pipelines.runners.kfp.runs import latest

    found = latest(kfp.connect(), model, limit)
    if kfp.output is Output.JSON:
        emit([one.model_dump(mode="json") for one in found])
        return
    rows = [
        (one.name, one.state, f"{one.created_at:%Y-%m-%d %H:%M:%S}", f"{one.seconds:.0f}", one.id)
        for one in found
    ]
    show_rows(rows, ("run", "state", "started (UTC)", "seconds", "id"))


@app.command()
@on_kfp
def show(kfp: KfpOptions, run: RunName, wait: Wait = False, leave_stuck: LeaveStuck = False) -> None:
    """Show a run with its steps; with --wait, to its end."""
    from modelyard.pipelines.cli.progress import follow, show_once
    from modelyard.pipelines.runners.kfp.runs import find

    environment = kfp.load()
    backend = kfp.connect(environment)
    found = find(backend, run)
    if wait:
        follow(backend, found, environment, kfp, leave_stuck)
    else:
        show_once(backend, found, environment, kfp.output)


@app.command()
@on_kfp
def cancel(kfp: KfpOptions, run: RunName) -> None:
    """End a run; what it has published stays."""
    from modelyard.pipelines.runners.kfp import runs

    backend = kfp.connect()
    found = runs.find(backend, run)
    runs.cancel(backend, found)
    done = {"run": found.display_name, "id": found.run_id, "done": "cancelled"}
    kfp.show(done, f"{found.display_name} is cancelled.")


@app.command()
@on_kfp
def retry(kfp: KfpOptions, run: RunName) -> None:
    """Start the failed steps of a run again; what succeeded stays."""
    from modelyard.pipelines.runners.kfp import runs

    backend = kfp.connect()
    found = runs.find(backend, run)
    runs.retry(backend, found)
    done = {"run": found.display_name, "id": found.run_id, "done": "started again"}
    kfp.show(done, f"{found.display_name} is started again.")


@on_kfp
def logs(
    kfp: KfpOptions,
    run: RunName,
    step: Annotated[
        str | None, typer.Argument(metavar="STEP", help="Of this step only.", show_default=False)
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on while it runs.")] = False,
    whole: Annotated[
        bool, typer.Option("--all", help="Also what Kubeflow Pipelines and Argo write around a step's lines.")
    ] = False,
) -> None:
    """Print what the steps of a run wrote, also after their pods are gone."""
    from modelyard.components.errors import ConfigError
    from modelyard.components.explain.explanation import step_lines
    from modelyard.pipelines.runners.kfp.runs import RunArchive, find
    from modelyard.pipelines.train_to_serve import STEPS

    if step and step not in STEPS:
        raise ConfigError(f"There is no step {step!r}; they are {', '.join(STEPS)}.")
    backend = kfp.connect()
    archive = RunArchive(backend, find(backend, run).run_id)
    found = archive.logs((step,) if step else STEPS, follow)
    shown = ((name, lines if whole else step_lines(lines)) for name, lines in found)
    if kfp.output is Output.JSON:
        emit([{"step": name, "lines": list(lines)} for name, lines in shown])
        return
    empty = True
    for name, lines in shown:
        empty = False
        if not step:
            typer.echo(typer.style(f"{name}:", bold=True))
        for line in lines:
            typer.echo(line)
    if empty:
        typer.echo("There is no log: no pod has started, or the outputs came from the cache.", err=True)


def explain(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN",
            help="Its name, or its id on Kubeflow Pipelines; the latest of this machine if left out.",
            show_default=False,
        ),
    ] = None,
    environment: EnvironmentName = "local",
    endpoint: Endpoint = None,
    namespace: KfpNamespace = None,
    output: OutputFormat = Output.TEXT,
) -> None:
    """Explain how a run ended and what to change: a run on this machine, or with -e on Kubeflow Pipelines.

    When the pods of a run are gone, it reads what Kubeflow Pipelines keeps of them.
    """
    from modelyard.pipelines.runners import runs
    from modelyard.pipelines.runners.explain_run import explain_kfp, explain_local

    place = pipelines_environment(environment, namespace)
    if place.kind == "local":
        found = explain_local(runs.home(), run)
    elif run is None:
        raise typer.BadParameter("Name a run; `modelyard runs list` shows which there are.", param_hint="RUN")
    else:
        found = explain_kfp(run, place, endpoint)
    if output is Output.JSON:
        emit(found.json())
    else:
        typer.echo(found.text)
