"""`gc` and `doctor`."""

from collections import Counter
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
    StoreUrl,
    print_json,
    print_rows,
)

if TYPE_CHECKING:
    from rich.console import Console

    from modelyard.pipelines.maintenance.garbage_collection import Removable

MAX_REASONS = 20


def gc(
    config: ConfigFile = None,
    environment: EnvironmentName = "local",
    overrides: Overrides = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove without confirmation.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed.")] = False,
    endpoint: Endpoint = None,
    namespace: KfpNamespace = None,
    output: OutputFormat = Output.TEXT,
) -> None:
    """Remove unused versions, local runs, uploads and checkpoints.

    Keeps everything that is in use or younger than `retention.younger_than`, and the latest versions and runs
    (`retention.versions`, `retention.runs`). Shows the objects to remove and the reasons for keeping others,
    and asks for confirmation. Without a terminal, removes nothing unless --yes is set.
    """
    import time

    from rich.console import Console

    from modelyard.pipelines import api
    from modelyard.pipelines.maintenance.garbage_collection import GarbageCollector
    from modelyard.pipelines.runners import run_folder, select

    console = Console(stderr=True)
    with console.status("listing"):
        env = select.RunScope(environment, endpoint, namespace, overrides or ()).environment
        settings = api.load_config(config, overrides or (), environment)
        removables = GarbageCollector(settings, env, run_folder.home(), time.time(), endpoint).find()
    to_remove = [item for item in removables if item.keep_reason is None]
    if output is Output.TEXT:
        _print_removables(removables, to_remove)
    confirmed = not dry_run and (yes or (to_remove and _confirm(output, console)))
    removed = _remove(to_remove, console) if confirmed else []
    if output is Output.JSON:
        print_json([_to_json(item, item in removed) for item in removables])
    elif confirmed:
        typer.echo(f"Removed {len(removed)} of {len(to_remove)} objects.")


def doctor(
    store: StoreUrl = None, environment: EnvironmentName = "local", output: OutputFormat = Output.TEXT
) -> None:
    """Check this machine and, with -e, a cluster.

    Checks Python, packages, CPU, disk, model store, port and network. The exit code is 1 if a check fails.
    """
    from modelyard.components.serve.settings import Serving
    from modelyard.pipelines import api
    from modelyard.pipelines.config.config import load_section
    from modelyard.pipelines.environments.load import load_environment
    from modelyard.pipelines.maintenance.doctor import run_checks

    section = load_section("serving", Serving)
    store_section = api.load_store_section(store, environment)
    checks = run_checks(store_section, section, environment, load_environment(environment))
    if output is Output.JSON:
        print_json([check._asdict() for check in checks])
    else:
        marks = ["!" if check.warning else "✓" if check.ok else "✗" for check in checks]
        print_rows([(mark, check.name, check.message) for mark, check in zip(marks, checks, strict=True)])
    raise typer.Exit(0 if all(check.ok for check in checks) else 1)


def _confirm(output: Output, console: "Console") -> bool:
    return output is Output.TEXT and console.is_terminal and typer.confirm("Remove?", err=True)


def _print_removables(removables: list["Removable"], to_remove: list["Removable"]) -> None:
    from rich.filesize import decimal

    if to_remove:
        rows = [(item.kind, item.name, decimal(item.size), item.reason) for item in to_remove]
        print_rows(rows, ("kind", "name", "size", "reason"))
    total = decimal(sum(item.size for item in to_remove))
    typer.echo(f"{len(to_remove)} of {len(removables)} objects can be removed ({total}).")
    counts = Counter((item.kind, item.keep_reason) for item in removables if item.keep_reason)
    if counts:
        reasons = [(kind, str(count), reason) for (kind, reason), count in counts.most_common(MAX_REASONS)]
        print_rows(reasons, ("kind", "count", "reason to keep"))
    if len(counts) > MAX_REASONS:
        typer.echo("`--output json` lists all kept objects with the reasons.")


def _remove(to_remove: list["Removable"], console: "Console") -> list["Removable"]:
    from rich.progress import track

    removed_items = []
    for item in track(to_remove, "removing", console=console, transient=True):
        if item.remove():
            removed_items.append(item)
        else:
            console.print(
                f"The {item.kind} {item.name} is kept, because it may be in use again.", soft_wrap=True
            )
    return removed_items


def _to_json(item: "Removable", removed: bool) -> dict[str, Any]:
    row = {"kind": item.kind, "name": item.name, "bytes": item.size, "reason": item.reason}
    return {**row, "keep_reason": item.keep_reason, "removed": removed}
