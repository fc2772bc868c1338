"""`run` and `compile`: the pipeline, executed or written down."""

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
    skip_options,
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

    Progress goes to stderr, the summary to stdout. Steps whose inputs have not changed come from the cache.
    """
    from modelyard.pipelines.cli.progress import complete, start

    options = skip_options(skip_unchanged, force_after)
    complete(start(config, environment, overrides or (), options), output)


def compile_(
    file: Annotated[Path, typer.Option("-o", "--file", help="The .yaml file to write.")],
    config: ConfigFile = None,
    environment: EnvironmentName = "local",
    overrides: Overrides = None,
) -> None:
    """Compile the pipeline to KFP's YAML.

    The configuration becomes the default arguments; the environment decides the image, the resources and the
    node of each step.
    """
    if file.suffix not in (".yaml", ".yml"):
        raise typer.BadParameter(f"{file} is not the name of a .yaml file.", param_hint="-o")
    if not file.absolute().parent.is_dir():
        raise typer.BadParameter(f"There is no folder {file.parent}.", param_hint="-o")
    from modelyard.pipelines import api

    api.compile_pipeline(file, config, environment, overrides or ())
    typer.echo(str(file))
