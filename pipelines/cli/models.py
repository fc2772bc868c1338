"""`models list|show|promote|history` and `rollback`: what is in the model store, and who is champion."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelyard.pipelines.cli.options import (
    EnvironmentName,
    ModelName,
    Output,
    OutputFormat,
    Reason,
    StoreUrl,
    Version,
    cell,
    emit,
    models_in,
    say,
    show,
    show_list,
    show_rows,
    store_section,
    user,
)

if TYPE_CHECKING:
    from modelyard.components.artifacts import Manifest
    from modelyard.components.store.models import ModelStore
    from modelyard.components.store.records import Champion

app = typer.Typer(
    name="models", help="Show models and their versions; promote by hand.", no_args_is_help=True
)
FOLLOW = "Running servers that follow the champion take it within serving.poll_interval."


@app.command("list")
def list_(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A model, to list its versions.", show_default=False)
    ] = None,
    store: StoreUrl = None,
    environment: EnvironmentName = "local",
    output: OutputFormat = Output.TEXT,
) -> None:
    """List the models, or the versions of one."""
    models = models_in(store, environment)
    rows = _versions(models, name) if name else [_model(models, one) for one in models.names()]
    shown, head = [tuple(map(_cell, row.values())) for row in rows], tuple(rows[0]) if rows else ()
    empty = f"There are no models in {models.url}. `modelyard run` makes one."
    show_list(output, rows, shown, head, empty)


@app.command("show")
def show_(
    name: ModelName,
    version: Annotated[
        int | None,
        typer.Argument(metavar="VERSION", min=1, help="Default: the champion, or else the latest."),
    ] = None,
    store: StoreUrl = None,
    environment: EnvironmentName = "local",
    output: OutputFormat = Output.TEXT,
) -> None:
    """Show the origin and the metrics of a version."""
    models = models_in(store, environment)
    champion = models.champion(name)
    manifest = models.manifest(name, version or (champion.version if champion else models.latest(name)))
    is_champion = champion is not None and champion.version == manifest.version
    if output is Output.JSON:
        emit({**manifest.model_dump(mode="json"), "champion": is_champion})
    else:
        show_rows(list(_facts(manifest, is_champion).items()))


@app.command()
def promote(
    name: ModelName,
    version: Version,
    reason: Reason = "promoted by hand",
    store: StoreUrl = None,
    environment: EnvironmentName = "local",
    output: OutputFormat = Output.TEXT,
) -> None:
    """Make a version the champion.

    Running servers switch to it without dropping a request; on a cluster, the next deploy rolls it out.
    """
    from modelyard.pipelines.environments.load import load_environment

    place = load_environment(environment)
    champion = models_in(store, environment).promote(name, version, reason=reason, by=user())
    servers = FOLLOW
    if place.on_cluster and store_section(store, environment) == place.model_store():
        servers = (
            "The servers of the cluster still have the version that they had: the next deploy, or `modelyard "
            f"deploy {name} {version} -e {environment}`, brings them to it."
        )
    _show_champion(champion, name, servers, output)


def rollback(
    name: ModelName,
    to: Annotated[
        int | None,
        typer.Option(
            "--to",
            min=1,
            metavar="VERSION",
            help="The version to roll back to. Default: the previous champion.",
        ),
    ] = None,
    reason: Reason = "rolled back by hand",
    store: StoreUrl = None,
    environment: EnvironmentName = "local",
    output: OutputFormat = Output.TEXT,
) -> None:
    """Make the previous champion the champion again.

    Running servers switch to it without dropping a request; on a cluster it is rolled out.
    """
    from modelyard.pipelines.environments.load import load_environment

    if load_environment(environment).on_cluster:
        if store is not None:
            raise typer.BadParameter(f"{environment} has a store of its own.", param_hint="--store")
        champion, servers = _rollback_there(name, to, reason, environment), "Its servers have it."
    else:
        champion = models_in(store, environment).rollback(name, to, reason=reason, by=user())
        servers = FOLLOW
    _show_champion(champion, name, servers, output)


@app.command()
def history(
    name: ModelName,
    store: StoreUrl = None,
    environment: EnvironmentName = "local",
    output: OutputFormat = Output.TEXT,
) -> None:
    """List promotions and rollbacks, oldest first."""
    models = models_in(store, environment)
    entries = models.history(name)
    if not entries:
        models.latest(name)  # raises when there is no such model
    keys = ("number", "at", "action", "version", "previous", "by", "reason", "attempt")
    rows = [tuple(_cell(getattr(entry, key)) for key in keys) for entry in entries]
    empty = f"{name} has no history in {models.url}: no version of it was ever promoted."
    show_list(output, [entry.model_dump(mode="json") for entry in entries], rows, keys, empty)


def _show_champion(champion: "Champion", name: str, servers: str, output: Output) -> None:
    text = f"Version {champion.version} is the champion of {name}. {servers}"
    show(output, champion.model_dump(mode="json"), text)


def _rollback_there(name: str, to: int | None, reason: str, environment: str) -> "Champion":
    """Roll back on a cluster, to the servers that served the version."""
    from modelyard.pipelines.serving.platforms import find_controller

    controller = find_controller(name, environment, user())
    version = to or controller.models.require_champion(name).previous
    return find_controller(name, environment, user(), log=say, version=version).rollback(to, reason)


def _model(models: "ModelStore", name: str) -> dict[str, Any]:
    champion, versions = models.champion(name), models.versions(name)
    manifest = models.manifest(name, champion.version) if champion else None
    return {
        "model": name,
        "champion": champion.version if champion else None,
        "metric": manifest.metrics.primary if manifest else None,
        "value": manifest.metrics.main.value if manifest else None,
        "run": manifest.run_id if manifest else None,
        "versions": len(versions),
        "latest": versions[-1],
    }


def _versions(models: "ModelStore", name: str) -> list[dict[str, Any]]:
    champion = models.champion(name)
    models.latest(name)  # raises when there is no such model
    manifests = [models.manifest(name, version) for version in models.versions(name)]
    return [
        {
            "version": manifest.version,
            "champion": champion is not None and champion.version == manifest.version,
            "metric": manifest.metrics.primary,
            "value": manifest.metrics.main.value,
            "created": manifest.created,
            "run": manifest.run_id,
            "fingerprint": manifest.run,
        }
        for manifest in manifests
    ]


def _facts(manifest: "Manifest", is_champion: bool) -> dict[str, str]:
    from modelyard.components.artifacts import format_number

    metric, given, answer = manifest.metrics.main, manifest.signature.input, manifest.signature.output
    low, high = format_number(metric.low), format_number(metric.high)
    return {
        "version": f"{manifest.version} of {manifest.model}" + (", the champion" if is_champion else ""),
        "created": manifest.created,
        "problem": manifest.signature.problem,
        manifest.metrics.primary: f"{format_number(metric.value)}  (95 % interval {low} to {high})",
        "decision": f"{manifest.decision.decision}: {manifest.decision.reason}",
        "takes": f"{given.dtype} {' x '.join(map(str, given.shape))}",
        "gives": f"{answer.meaning}: {', '.join(answer.names)}",
        "run": manifest.run_id or "none: it was published by hand",
        "fingerprint": manifest.run,
        "data": manifest.data,
        "files": ", ".join(manifest.files),
    }


def _cell(value: Any) -> str:
    return cell(value) if not isinstance(value, bool) else "yes" if value else ""
