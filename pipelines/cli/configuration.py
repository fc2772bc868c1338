"""`config show|schema|init|reference`: the configuration itself."""

from pathlib import Path
from typing import Annotated

import typer

from modelyard.pipelines.cli.options import ConfigFile, EnvironmentName, Output, OutputFormat, Overrides, emit

app = typer.Typer(
    name="config", help="Show the configuration and its keys, or write a new one.", no_args_is_help=True
)


@app.command()
def show(
    config: ConfigFile = None,
    environment: EnvironmentName = "",
    overrides: Overrides = None,
    output: OutputFormat = Output.TEXT,
) -> None:
    """Print the effective configuration, defaults included; with -e, also the environment."""
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
    """Print the JSON Schema of the configuration, for editors."""
    from modelyard.pipelines.cli.reference import schema

    typer.echo(schema())


@app.command()
def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")] = Path("modelyard.yaml"),
) -> None:
    """Write a configuration to start from; its comments explain every key."""
    from modelyard.components.errors import ConfigError
    from modelyard.pipelines.cli.reference import starter_config

    try:
        with file.open("x", encoding="utf-8") as target:
            target.write(starter_config())
    except FileExistsError as error:
        raise ConfigError(f"{file} exists already and was left as it is. Name another file.") from error
    except FileNotFoundError as error:
        raise ConfigError(
            f"{file} cannot be written: there is no folder {file.parent}. Create it, or name another file."
        ) from error
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}. Name another file.") from error
    typer.echo(f"Wrote {file}. Try: modelyard run {file}")


@app.command()
def reference(
    environments: Annotated[
        bool, typer.Option("--environments", help="The keys of an environment instead.")
    ] = False,
) -> None:
    """Print the reference of all keys, in Markdown."""
    from modelyard.pipelines.cli.reference import config_page, environments_page

    typer.echo(environments_page() if environments else config_page(), nl=False)
