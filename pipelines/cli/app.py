"""All commands."""

from typing import Annotated

import typer

from modelyard.pipelines.cli import (
    configuration,
    maintenance,
    models,
    pipeline,
    rollouts,
    runs,
    schedule,
    serving,
)
from modelyard.pipelines.cli.help import Group

EPILOG = """Exit codes: 0 success, even if the gate holds or rejects · 1 unexpected error, or a failed check
of doctor · 2 configuration or command line · 3 data · 4 training · 5 evaluation · 6 deployment · 7 model
store · 8 server · 9 cluster · 10 Kubeflow Pipelines · 11 a pod cannot start · 12 cancelled · 13 refused by
the plan · 14 a step was killed, ran out of memory or timed out · 15 full disk or limit of this machine ·
130 Ctrl-C. See docs/cli.md."""

app = Group(
    name="modelyard",
    help="Train, evaluate, deploy and serve Keras models with Kubeflow Pipelines.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # importing rich takes 0.2 s
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"modelyard {version('modelyard')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")] = False,
) -> None:
    """Train, evaluate, deploy and serve Keras models with Kubeflow Pipelines."""


app.command()(pipeline.run)
app.command()(pipeline.plan)
app.command()(serving.serve)
app.command()(serving.predict)
app.add_typer(models.app)
app.command()(models.rollback)
app.command()(rollouts.deploy)
app.add_typer(rollouts.app)
app.command("compile")(pipeline.compile_)
app.add_typer(schedule.app)
app.command()(pipeline.submit)
app.add_typer(runs.app)
app.command()(maintenance.gc)
app.add_typer(configuration.app)
app.command()(runs.report)
app.command()(runs.explain)
app.command()(maintenance.doctor)
