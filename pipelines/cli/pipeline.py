"""`run`, `compile`, `report`: the pipeline and what it leaves."""

from pathlib import Path
from typing import Annotated

import typer

from modelyard.pipelines.cli.options import (
    ConfigFile,
    EnvironmentName,
    ForceAfter,
    Output,
    OutputFormat,
    Overrides,
    SkipUnchanged,
    emit,
    when_unchanged,
)


def run(
    config: ConfigFile = None,
    environment: EnvironmentName = "local",
    overrides: Overrides = None,
    skip_unchanged: SkipUnchanged = False,
    force_after: ForceAfter = None,
    output: OutputFormat = Output.TEXT,
) -> None:
    """Run the pipeline on this machine, or with its steps as pods of a cluster.

    From data to a gated model that a server has answered with. Progress goes to stderr, the summary to
    stdout; a second run with nothing changed uses the cache.
    """
    from rich.console import Console

    from modelyard.pipelines.cli.progress import conclude, run_with_table
    from modelyard.pipelines.config.config import load
    from modelyard.pipelines.environments.load import load_environment

    options = when_unchanged(skip_unchanged, force_after)
    place = load_environment(environment, overrides or ())
    settings = load(config, overrides or (), store=place.model_store())
    conclude(run_with_table(settings, place, options, Console(stderr=True)), settings, place, output)


def compile_(
    file: Annotated[Path, typer.Option("-o", "--file", help="Where to write: a .yaml file.")],
    config: ConfigFile = None,
    environment: EnvironmentName = "local",
    overrides: Overrides = None,
) -> None:
    """Write the pipeline as KFP's YAML.

    The configuration becomes the default arguments, the environment each step's image, size and node.
    """
    if file.suffix not in (".yaml", ".yml") or not file.absolute().parent.is_dir():
        raise typer.BadParameter(f"{file} is not a .yaml file in a folder that exists.", param_hint="-o")
    from modelyard.pipelines.compile.compiler import compile_to
    from modelyard.pipelines.config.config import load
    from modelyard.pipelines.environments.load import load_environment

    place = load_environment(environment, overrides or ())
    compile_to(load(config, overrides or (), store=place.model_store()), file, place)
    typer.echo(str(file))


def report(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="Its name; the latest if left out.")
    ] = None,
    browse: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    output: OutputFormat = Output.TEXT,
) -> None:
    """Say where the report of a run is."""
    from modelyard.components.errors import NotFoundError
    from modelyard.pipelines.runners import runs

    summary = runs.find(runs.home(), run)
    if summary.report is None or not Path(summary.report).is_file():
        raise NotFoundError(
            f"The run {summary.run} has no report: it {summary.state} before there was one, or it was "
            "cleaned up. `modelyard run` makes another."
        )
    if output is Output.JSON:
        emit({"run": summary.run, "report": summary.report})
    else:
        typer.echo(summary.report)
    if browse:
        typer.launch(Path(summary.report).as_uri())
