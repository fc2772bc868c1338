"""`explain`: how a run ended or fares, and why, in a paragraph."""

from typing import Annotated

import typer

from modelyard.pipelines.cli.options import (
    Endpoint,
    EnvironmentName,
    KfpNamespace,
    Output,
    OutputFormat,
    emit,
    pipelines_environment,
)


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
    """Say how a run ended and why, and what to change: of this machine, or with -e on Kubeflow Pipelines.

    It reads the pods while they are there, and what Kubeflow Pipelines keeps when they are gone.
    """
    from modelyard.pipelines.runners import runs
    from modelyard.pipelines.runners.explaining import of_this_machine, on_pipelines

    place = pipelines_environment(environment, namespace)
    if place.kind == "local":
        found = of_this_machine(runs.home(), run)
    elif run is None:
        raise typer.BadParameter("Name a run; `modelyard runs list` shows which there are.", param_hint="RUN")
    else:
        found = on_pipelines(run, place, endpoint)
    if output is Output.JSON:
        emit(found.json())
    else:
        typer.echo(found.text)
