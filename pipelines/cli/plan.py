"""`plan`: whether a run fits, how long it takes and what it costs."""

import shlex
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from modelyard.pipelines.cli.options import (
    Budget,
    ConfigFile,
    EnvironmentName,
    Output,
    OutputFormat,
    Overrides,
    emit,
)


def plan(
    config: ConfigFile = None,
    environment: EnvironmentName = "local",
    overrides: Overrides = None,
    probe: Annotated[
        bool,
        typer.Option("--probe", help="Measure training steps on the machine or cluster that would train."),
    ] = False,
    probe_seconds: Annotated[
        float,
        typer.Option(
            "--probe-seconds",
            min=1,
            metavar="S",
            help="Duration of the measured training in seconds, without startup and export.",
        ),
    ] = 20.0,
    learning_curve: Annotated[
        bool,
        typer.Option(
            "--learning-curve",
            help="Train on increasing parts of the data on this machine, to estimate the benefit of more "
            "data.",
        ),
    ] = False,
    budget: Budget = None,
    price: Annotated[
        float | None,
        typer.Option(
            "--price", min=0, metavar="USD", help="Price per hour of the machine; overrides --prices."
        ),
    ] = None,
    prices: Annotated[
        Path | None,
        typer.Option(
            "--prices",
            metavar="FILE",
            help="YAML file with accelerators and prices. Default: the prices in modelyard.",
        ),
    ] = None,
    fetch: Annotated[
        bool, typer.Option("--fetch", help="Download data that is not on this machine. Implied by --probe.")
    ] = False,
    rows: Annotated[
        int | None,
        typer.Option("--rows", min=1, metavar="N", help="Number of examples of data that is not downloaded."),
    ] = None,
    outputs: Annotated[
        int | None,
        typer.Option(
            "--outputs",
            min=1,
            metavar="N",
            help="With --rows: number of outputs of the model, such as classes.",
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="List all accelerators.")] = False,
    output: OutputFormat = Output.TEXT,
) -> None:
    """Estimate memory, time and cost of a run.

    Deploys nothing, and trains only with --probe or --learning-curve. A later run takes the prepared data
    from the cache. The exit code is 13 if the run cannot succeed or exceeds --budget.
    """
    from rich.console import Console
    from rich.text import Text

    from modelyard.components.errors import ConfigError, PlanError
    from modelyard.pipelines import api
    from modelyard.pipelines.planning.planner import Request
    from modelyard.pipelines.planning.render import print_plan

    if rows is not None and (fetch or learning_curve):
        other = "--fetch" if fetch else "--learning-curve"
        raise ConfigError(
            f"--rows {rows} and {other} exclude each other: {other} downloads the data and counts it. "
            "Remove one."
        )
    request = Request(
        probe=probe,
        seconds=probe_seconds,
        learning_curve=learning_curve,
        fetch=fetch,
        examples=rows,
        outputs=outputs,
        prices=prices,
        price=price,
        budget=budget,
    )
    with Console(stderr=True).status("starting") as status:
        warn = partial(status.console.print, style="yellow", markup=False, soft_wrap=True)
        log = lambda message: status.update(Text(message))  # noqa: E731 - a pod's log is not markup
        result = api.plan(config, environment, overrides or (), request, log=log, warn=warn)
    if output is Output.JSON:
        emit(result.model_dump(mode="json"))
    else:
        command = ["modelyard", "plan", *([str(config)] if config else ())]
        command += ["-e", environment] if environment != "local" else []
        command += [part for override in overrides or () for part in ("--set", override)]
        print_plan(result, Console(), everything, shlex.join([*command, "--probe"]))
    raise typer.Exit(PlanError.exit_code if result.problems or result.exceeded else 0)
