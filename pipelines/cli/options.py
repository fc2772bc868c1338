"""Options that several commands have, and printing of tables and JSON."""

import inspect
import json
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from modelyard.components.store.models import ModelStore

NO_VALUE = "–"


class Output(StrEnum):
    """The output format of a command."""

    TEXT = "text"
    JSON = "json"


ConfigFile = Annotated[
    Path | None,
    typer.Argument(metavar="CONFIG", help="Configuration file (YAML). Default: the digits example."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key of the configuration, such as training.epochs=3. Repeatable.",
    ),
]
EnvironmentName = Annotated[
    str,
    typer.Option(
        "-e",
        "--environment",
        metavar="ENV",
        help="Environment: local, kind, gke, the name of a file in ./environments, or the path of a .yaml "
        "file.",
    ),
]
RunsEnvironment = Annotated[
    str | None,
    typer.Option(
        "-e",
        "--environment",
        metavar="ENV",
        help="Environment in which to find runs, including runs on Kubeflow Pipelines. Default: the runs "
        "that `modelyard run` started on this machine, in any environment.",
    ),
]
OutputFormat = Annotated[
    Output, typer.Option("--output", metavar="FORMAT", help="Output format: text, or json for scripts.")
]
CertificateAuthorities = Annotated[
    Path | None,
    typer.Option(
        "--ca",
        exists=True,
        dir_okay=False,
        metavar="FILE",
        help="PEM file with the CA certificates that verify the server.",
    ),
]
Endpoint = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="URL of the Kubeflow Pipelines API. Default: KF_PIPELINES_ENDPOINT, then kfp.endpoint of the "
        "environment, then the Service ml-pipeline of the cluster.",
    ),
]
KfpNamespace = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Namespace of Kubeflow Pipelines. Default: kfp.namespace of the environment."
    ),
]
SkipUnchanged = Annotated[
    bool,
    typer.Option(
        "--skip-unchanged",
        help="End the run without training if the champion has the same data, configuration and code.",
    ),
]
ForceAfter = Annotated[
    str | None,
    typer.Option(
        "--force-after",
        metavar="TIME",
        help="With --skip-unchanged: train anyway if the champion is older than TIME, such as 12h or 30d.",
    ),
]
Wait = Annotated[
    bool, typer.Option("--wait", help="Wait until the run ends; the exit code is that of the run.")
]
LeaveStuck = Annotated[
    bool,
    typer.Option("--leave-stuck", help="With --wait: do not cancel the run if one of its pods cannot start."),
]
RunName = Annotated[
    str, typer.Argument(metavar="RUN", help="Name of the run, or its ID on Kubeflow Pipelines.")
]
ModelName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the model.")]
StoreUrl = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="Model store: gs://bucket/prefix, file:///path or a path. Default: MODELYARD_STORE__URL, then "
        "the store of the environment, then .modelyard/models.",
    ),
]
Anyway = Annotated[
    bool,
    typer.Option(
        "--anyway", help="Continue even if a step fits on no node, or the last plan predicts a failure."
    ),
]
Version = Annotated[int, typer.Argument(metavar="VERSION", min=1, help="Version number.")]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Reason to record in the history.")]

Budget = Annotated[float | None, typer.Option(min=0, metavar="USD", help="Maximum cost of the run.")]


def check_server_url(url: str | None) -> str | None:
    """Return the value of `--url` of a model server; exit with 2 if it is not an HTTP URL."""
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a malformed host or port
        valid = False
    if not valid:
        raise typer.BadParameter(f"{url!r} is not a URL such as http://host:8501.", param_hint="--url")
    return url


def with_kfp_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add -e, --endpoint, --namespace and --output to a command with the parameters `scope` and `output`."""
    return _with_scope(command, EnvironmentName, inspect.Parameter.empty)


def with_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of `with_kfp_options` to a command about runs; -e is optional."""
    return _with_scope(command, RunsEnvironment, None)


def _with_scope(command: Callable[..., None], kind: Any, default: Any) -> Callable[..., None]:
    """Return the command with the options; `kind` and `default` are those of -e."""

    def run(
        environment: str | None,
        endpoint: Endpoint = None,
        namespace: KfpNamespace = None,
        output: OutputFormat = Output.TEXT,
        **arguments: Any,
    ) -> None:
        from modelyard.pipelines.runners.select import RunScope

        command(scope=RunScope(environment, endpoint, namespace), output=output, **arguments)

    _, _, *arguments = inspect.signature(command).parameters.values()  # without scope and output
    environment, *options, _ = inspect.signature(run).parameters.values()  # without **arguments
    wraps(command)(run)
    environment = environment.replace(annotation=kind, default=default)
    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in (*arguments, environment, *options)
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def open_store(url: str | None, environment: str = "local") -> "ModelStore":
    """Return the model store for a command without a configuration."""
    from modelyard.pipelines import api

    return api.open_store(url, environment)


def parse_skip_options(skip: bool, force_after: str | None) -> dict[str, bool | int]:
    """Return the pipeline arguments of `--skip-unchanged` and `--force-after`."""
    from modelyard.pipelines.config.text import parse_duration

    if force_after and not skip:
        raise typer.BadParameter("The option requires --skip-unchanged.", param_hint="--force-after")
    seconds = parse_duration(force_after, "--force-after") if force_after else 0
    return {"skip_unchanged": skip, "force_after": seconds}


def log(message: str) -> None:
    """Print a message about the progress of a command to stderr."""
    typer.echo(message, err=True)


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    unicode = (sys.stdout.encoding or "").lower().replace("_", "-") in ("utf-8", "utf8")
    typer.echo(json.dumps(value, indent=2, ensure_ascii=not unicode))


def print_result(output: Output, value: Any, text: str) -> None:
    """Print a value as JSON, or its text."""
    print_json(value) if output is Output.JSON else typer.echo(text)


def print_list(
    output: Output, values: Sequence[Any], rows: Sequence[tuple[str, ...]], head: tuple[str, ...], empty: str
) -> None:
    """Print values as JSON, or as a table; `empty` is the text for an empty table."""
    if output is Output.JSON:
        print_json(values)
    elif rows:
        print_rows(rows, head)
    else:
        typer.echo(empty)


def print_rows(rows: Sequence[tuple[str, ...]], head: tuple[str, ...] = ()) -> None:
    """Print a table; without a terminal, each row is one line."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console() if sys.stdout.isatty() else Console(width=1000)
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=bool(head), header_style="dim")
    for name in head or rows[0] if rows else ():
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    print_table(table, console)


def print_table(table: "RenderableType", console: "Console") -> None:
    """Print a table to stdout without blanks at the end of lines."""
    with console.capture() as capture:
        console.print(table)
    typer.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


def format_cell(value: object) -> str:
    """Format a value for a table."""
    from modelyard.components.artifacts import format_number

    if value is None:
        return NO_VALUE
    if isinstance(value, float):
        return format_number(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)  # as in YAML


def format_time(text: str) -> str:
    """Format an ISO 8601 time, such as 2026-01-01 00:00:00."""
    return text[:19].replace("T", " ")


def get_user() -> str:
    """Return the name of the user, for the history."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"
