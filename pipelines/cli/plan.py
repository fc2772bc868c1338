"""`plan`: will it fit, how long, how much, and what can go wrong."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from modelyard.pipelines.cli.options import (
    Budget,
    ConfigFile,
    Deadline,
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
    on: Annotated[
        list[str] | None,
        typer.Option("--on", metavar="ACCELERATOR[xN]", help="Look at this one, as nvidia-l4x2."),
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Train for some seconds here, and measure what it takes.")
    ] = False,
    probe_seconds: Annotated[
        float, typer.Option("--probe-seconds", min=1, metavar="S", help="How long, besides start and export.")
    ] = 20.0,
    learning_curve: Annotated[
        bool,
        typer.Option(
            "--learning-curve",
            help="Train here on growing parts of the data, fetched if it is not here: what would more bring?",
        ),
    ] = False,
    budget: Budget = None,
    deadline: Deadline = None,
    price: Annotated[
        float | None, typer.Option("--price", min=0, metavar="USD", help="An hour of the machine costs this.")
    ] = None,
    hardware: Annotated[
        Path | None, typer.Option("--hardware", metavar="FILE", help="Accelerators and prices of your own.")
    ] = None,
    fetch: Annotated[
        bool, typer.Option("--fetch", help="Download data that is not here; --probe does so, too.")
    ] = False,
    rows: Annotated[
        int | None, typer.Option("--rows", min=1, metavar="N", help="There are so many examples.")
    ] = None,
    classes: Annotated[
        int | None, typer.Option("--classes", min=2, metavar="N", help="So many classes, beside --rows.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All accelerators and inputs.")] = False,
    output: OutputFormat = Output.TEXT,
) -> None:
    """Say before anything is launched: will it fit, how long, how much, what can go wrong.

    Nothing is deployed, and a run here after it takes prepared data from the cache. Ends with 13 when memory,
    --budget or --deadline speak against the run.
    """
    from rich.console import Console
    from rich.text import Text

    from modelyard.components.errors import ConfigError, PlanError
    from modelyard.pipelines.config.config import load
    from modelyard.pipelines.environments.load import load_environment
    from modelyard.pipelines.planning.plan import Wishes
    from modelyard.pipelines.planning.planning import make
    from modelyard.pipelines.planning.render import show
    from modelyard.pipelines.runners import runs

    if rows is not None and (fetch or learning_curve):
        other = "--fetch" if fetch else "--learning-curve"
        raise ConfigError(
            f"--rows {rows} is for data that stays where it is, and {other} brings it here, where its rows "
            "are counted. Give one of the two."
        )
    place = load_environment(environment, overrides or ())
    settings = load(config, overrides or (), store=place.model_store())
    wishes = Wishes(
        on=tuple(on or ()),
        probe=probe,
        seconds=probe_seconds,
        learning_curve=learning_curve,
        fetch=fetch,
        rows=rows,
        classes=classes,
        hardware=hardware,
        price=price,
        budget=budget,
        deadline=deadline,
    )
    with Console(stderr=True).status("starting") as status:
        warn = partial(status.console.print, style="yellow", markup=False, soft_wrap=True)
        say = lambda words: status.update(Text(words))  # noqa: E731 - a pod's words are no markup
        made = make(settings, place, environment, wishes, runs.home(), say=say, warn=warn)
    if output is Output.JSON:
        emit(made.model_dump(mode="json"))
    else:
        show(made, Console(), everything)
    raise typer.Exit(PlanError.exit_code if made.refusals else 0)
