"""`gc`: what nothing needs any more goes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelyard.pipelines.cli.options import (
    ConfigFile,
    Endpoint,
    EnvironmentName,
    KfpNamespace,
    Output,
    OutputFormat,
    Overrides,
    emit,
    pipelines_environment,
    show_rows,
)

if TYPE_CHECKING:
    from modelyard.pipelines.maintenance.place import Place
    from modelyard.pipelines.maintenance.thing import Thing


def gc(
    config: ConfigFile = None,
    environment: EnvironmentName = "local",
    overrides: Overrides = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it, without a question.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show it, and remove nothing.")] = False,
    endpoint: Endpoint = None,
    namespace: KfpNamespace = None,
    output: OutputFormat = Output.TEXT,
) -> None:
    """Remove what nothing needs: versions, runs, artifacts, uploads, checkpoints, pods, schedules, images.

    The section `retention` says what is kept beside what is in use. It is shown first; a script that is to
    remove it says --yes.
    """
    from rich.console import Console

    from modelyard.pipelines.maintenance import plan

    console = Console(stderr=True)
    with console.status("looking"):
        place = _place(config, environment, namespace, overrides or ())
        place.look(endpoint)
        found = plan.find(place)
    going = [thing for thing in found if thing.kept is None]
    if place.blind:
        console.print(
            f"Not all that may be in use can be seen, so that is left: {place.blind}", soft_wrap=True
        )
    if output is Output.TEXT:
        _show(found, going)
    sure = yes or (output is Output.TEXT and console.is_terminal and typer.confirm("Remove it?", err=True))
    gone = [] if dry_run or not going or not sure else _remove(going, console)
    if output is Output.JSON:
        emit([_row(thing, thing in gone) for thing in found])
    elif gone or sure:
        typer.echo(f"{len(gone)} of {len(going)} are gone.")


def _place(config: Any, environment: str, namespace: str | None, overrides: Sequence[str]) -> "Place":
    import time

    from modelyard.pipelines.config.config import load
    from modelyard.pipelines.maintenance.place import Place
    from modelyard.pipelines.runners import runs

    there = pipelines_environment(environment, namespace, overrides)
    return Place(load(config, overrides, store=there.model_store()), there, runs.home(), time.time())


def _show(found: list["Thing"], going: list["Thing"]) -> None:
    if going:
        rows = [(thing.kind, thing.name, _size(thing.size), thing.why) for thing in going]
        show_rows(rows, ("what", "name", "size", "why"))
    count = f"{len(going)} of {len(found)} are not needed any more"
    total = _size(sum(thing.size or 0 for thing in going))
    typer.echo(f"{count} ({total}); --output json says why the others are.")


def _remove(going: list["Thing"], console: Any) -> list["Thing"]:
    """Remove things one after the other, and return those that are gone."""
    from rich.progress import track

    gone = []
    for thing in track(going, "removing", console=console, transient=True):
        if thing.remove():
            gone.append(thing)
        else:
            console.print(f"{thing.kind} {thing.name} is left: it is used again, or may be.", soft_wrap=True)
    return gone


def _row(thing: "Thing", gone: bool) -> dict[str, Any]:
    """Return a thing as JSON; `kept` says why it stays."""
    return {
        "kind": thing.kind,
        "name": thing.name,
        "bytes": thing.size,
        "why": thing.why,
        "kept": thing.kept,
        "removed": gone,
    }


def _size(size: int | None) -> str:
    if size is None:
        return ""
    from rich.filesize import decimal

    return decimal(size)
