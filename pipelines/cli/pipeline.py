"""`run` and `compile`."""

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
    """Run the pipeline on this machine or on a cluster.

    The steps are processes, or pods of the cluster of the environment. Prints progress to stderr and the
    summary to stdout. Steps with unchanged inputs come from the cache.
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
    """Compile the pipeline to a YAML file for Kubeflow Pipelines.

    The configuration becomes the default arguments. The environment determines the image, resources and node
    of each step.
    """
    if file.suffix not in (".yaml", ".yml"):
        raise typer.BadParameter(f"{file} does not end with .yaml or .yml.", param_hint="-o")
    if not file.absolute().parent.is_dir():
        raise typer.BadParameter(f"The folder {file.parent} does not exist.", param_hint="-o")
    from modelyard.pipelines import api

    api.compile_pipeline(file, config, environment, overrides or ())
    typer.echo(str(file))
