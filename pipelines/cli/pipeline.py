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
    from modelyard.pipelines.cli.progress import complete, start_here
    from modelyard.pipelines.config.config import load
    from modelyard.pipelines.environments.load import load_environment

    options = when_unchanged(skip_unchanged, force_after)
    place = load_environment(environment, overrides or ())
    settings = load(config, overrides or (), store=place.model_store())
    run, plan_key = start_here(environment, settings, place, options)
    complete(run, output, plan_key)


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
