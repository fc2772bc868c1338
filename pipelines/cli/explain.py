"""`explain`: how a run ended, and why, in a paragraph."""

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
