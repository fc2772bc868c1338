"""`config show|schema|init|reference`."""

from pathlib import Path
from typing import Annotated

import typer

from modelyard.pipelines.cli.options import ConfigFile, EnvironmentName, Output, OutputFormat, Overrides, emit

app = typer.Typer(name="config", help="Print or create a configuration.", no_args_is_help=True)


@app.command()
def show(
    config: ConfigFile = None,
    environment: EnvironmentName = "",
    overrides: Overrides = None,
    output: OutputFormat = Output.TEXT,
) -> None:
    """Print the effective configuration.

    Includes all defaults, and with -e the environment.
    """
    from modelyard.pipelines.config import text as config_text
    from modelyard.pipelines.config.config import load
    from modelyard.pipelines.environments.load import load_environment

    env = load_environment(environment or "local", overrides or ())
    values = load(config, overrides or (), store=env.model_store()).model_dump(mode="json")
    if environment:
        values["environment"] = env.model_dump(mode="json")
    if output is Output.JSON:
        emit(values)
    else:
        typer.echo(config_text.dump(values), nl=False)


@app.command()
def schema() -> None:
    """Print the JSON Schema for editors."""
    from modelyard.pipelines.cli.reference import schema

    typer.echo(schema())


@app.command()
def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to create.")] = Path(
        "modelyard.yaml"
    ),
) -> None:
    """Create a file with a comment for each key."""
    from modelyard.components.errors import ConfigError
    from modelyard.pipelines.cli.reference import starter_config

    try:
        with file.open("x", encoding="utf-8") as target:
            target.write(starter_config())
    except FileExistsError as error:
        raise ConfigError(f"{file} already exists. Name another file.") from error
    except FileNotFoundError as error:
        raise ConfigError(
            f"{file} cannot be created: the folder {file.parent} does not exist. Create it, or name another "
            "file."
        ) from error
    except OSError as error:
        raise ConfigError(f"{file} cannot be created: {error.strerror}. Name another file.") from error
    typer.echo(f"Created {file}. Run it: modelyard run {file}")


@app.command()
def reference(
    environments: Annotated[
        bool, typer.Option("--environments", help="Print the keys of environments instead.")
    ] = False,
) -> None:
    """Print the reference of all keys as Markdown."""
    from modelyard.pipelines.cli.reference import config_page, environments_page

    typer.echo(environments_page() if environments else config_page(), nl=False)
