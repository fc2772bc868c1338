"""`config show|schema|init|reference`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from modelyard.pipelines.cli.help import Group
from modelyard.pipelines.cli.options import (
    ConfigFile,
    EnvironmentName,
    Output,
    OutputFormat,
    Overrides,
    print_json,
)

app = Group(name="config", help="Print or create a configuration.", no_args_is_help=True)


@app.command()
def show(
    config: ConfigFile = None,
    environment: EnvironmentName = "",
    overrides: Overrides = None,
    output: OutputFormat = Output.TEXT,
) -> None:
    """Print the effective configuration, with all defaults.

    With -e, includes the environment as the section `environment`.
    """
    from modelyard.pipelines import api
    from modelyard.pipelines.config.text import dump
    from modelyard.pipelines.environments.load import load_environment

    values = api.load_config(config, overrides or (), environment or "local").model_dump(mode="json")
    if environment:
        values["environment"] = load_environment(environment, overrides or ()).model_dump(mode="json")
    if output is Output.JSON:
        print_json(values)
    else:
        typer.echo(dump(values), nl=False)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors."""
    from modelyard.pipelines.cli.reference import schema

    typer.echo(schema())


@app.command()
def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to create.")] = Path(
        "modelyard.yaml"
    ),
) -> None:
    """Create a configuration file with a comment for each key."""
    from modelyard.components.artifacts import write_text
    from modelyard.components.errors import ConfigError
    from modelyard.pipelines.cli.reference import render_starter_config

    if os.path.lexists(file):
        raise ConfigError(f"{file} already exists. Choose another file.")
    if not file.absolute().parent.is_dir():
        raise ConfigError(
            f"{file} cannot be created: there is no folder {file.parent}. Create the folder, or choose "
            "another file."
        )
    write_text(file, render_starter_config())
    typer.echo(f"Created {file}. Next: modelyard run {file}")


@app.command()
def reference(
    environments: Annotated[
        bool, typer.Option("--environments", help="Print the reference of environment files instead.")
    ] = False,
) -> None:
    """Print the reference of all configuration keys as Markdown."""
    from modelyard.pipelines.cli.reference import render_config_reference, render_environment_reference

    typer.echo(render_environment_reference() if environments else render_config_reference(), nl=False)
