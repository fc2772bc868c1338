"""`models list|show|promote|history` and `rollback`: versions and the champion in the model store."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelyard.components.errors import DamagedError, StoreError
from modelyard.pipelines.cli.help import Group
from modelyard.pipelines.cli.options import (
    EnvironmentName,
    ModelName,
    Output,
    OutputFormat,
    Reason,
    StoreUrl,
    Version,
    format_cell,
    format_time,
    get_user,
    log,
    open_store,
    print_json,
    print_list,
    print_result,
    print_rows,
)

if TYPE_CHECKING:
    from modelyard.components.artifacts import Manifest
    from modelyard.components.store.models import ModelStore
    from modelyard.components.store.records import Champion, HistoryEntry

app = Group(name="models", help="List, show and promote versions in the model store.", no_args_is_help=True)
SERVERS_FOLLOW = "Running servers switch to this version within serving.poll_interval."
FINGERPRINT_DIGITS = 12  # of 64


@app.command("list")
def list_(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="List the versions of this model.")
    ] = None,
    store: StoreUrl = None,
    environment: EnvironmentName = "local",
    output: OutputFormat = Output.TEXT,
) -> None:
    """List the models, or the versions of a model.

    Also shows which versions are served.
    """
    models = open_store(store, environment)
    if name:
        rows = _list_versions(models, name, environment, store)
        _log_damaged_records(models, name)
    else:
        rows = [_summarize_model(models, model, environment, store) for model in models.names()]
    has_errors = any(row["error"] for row in rows)
    head = tuple(key for key in rows[0] if key != "error" or has_errors) if rows else ()
    cells = [tuple(_format_cell(key, row[key]) for key in head) for row in rows]
    empty = f"There are no models in {models.url}. `modelyard run` trains a model."
    print_list(output, rows, cells, head, empty)


@app.command("show")
def show_(
    name: ModelName,
    version: Annotated[
        int | None,
        typer.Argument(
            metavar="VERSION",
            min=1,
            help="Version number. Default: the champion; if there is none, the latest version.",
        ),
    ] = None,
    store: StoreUrl = None,
    environment: EnvironmentName = "local",
    output: OutputFormat = Output.TEXT,
) -> None:
    """Show the origin and metrics of a version, and where it is served."""
    models = open_store(store, environment)
    champion, pointer_error = _read_champion(models, name)
    manifest = models.manifest(name, version or _find_default_version(models, name, champion))
    is_champion = champion is not None and champion.version == manifest.version
    locations, serving_error = _find_served(models, name, environment, store)
    _log_damaged_records(models, name)
    served = [location for location, versions in locations.items() if manifest.version in versions]
    error = pointer_error or (serving_error if is_champion else None)
    if output is Output.JSON:
        state = {"champion": is_champion, "served": served, "error": error}
        print_json({**manifest.model_dump(mode="json"), **state})
    else:
        facts = _format_facts(manifest, is_champion) | {"served": ", ".join(served) or "on no known server"}
        if error and not pointer_error:  # a damaged pointer is logged
            facts["error"] = error
        print_rows([*facts.items()])


@app.command()
def promote(
    name: ModelName,
    version: Version,
    reason: Reason = "promoted manually",
    store: StoreUrl = None,
    environment: EnvironmentName = "local",
    output: OutputFormat = Output.TEXT,
) -> None:
    """Make a version the champion.

    First starts a server with the version on this machine and verifies its predictions. Running servers on
    this machine then switch to the version without dropping requests. Servers on a cluster are unchanged
    until the next `modelyard deploy`.
    """
    from modelyard.pipelines import api
    from modelyard.pipelines.environments.load import load_environment

    env, by = load_environment(environment), get_user()
    champion = api.promote(
        name, version, reason=reason, by=by, store_url=store, environment=environment, log=log
    )
    servers = SERVERS_FOLLOW
    if env.on_cluster and api.load_store_section(store, environment) == env.model_store():
        servers = (
            "The servers on the cluster are unchanged. Roll out the version with `modelyard deploy "
            f"{name} {version} -e {environment}`."
        )
    _show_champion(champion, name, servers, output)


def rollback(
    name: ModelName,
    to: Annotated[
        int | None,
        typer.Option(min=1, metavar="VERSION", help="Version number. Default: the previous champion."),
    ] = None,
    reason: Reason = "rolled back manually",
    store: StoreUrl = None,
    environment: EnvironmentName = "local",
    output: OutputFormat = Output.TEXT,
) -> None:
    """Roll back to the previous champion, or to another version.

    First starts a server with the version and verifies its predictions. Running servers on this machine then
    switch to the version; on a cluster, the Deployment is updated. No requests are dropped.
    """
    from modelyard.pipelines import api
    from modelyard.pipelines.environments.load import load_environment

    by = get_user()
    champion = api.rollback(name, to, reason=reason, by=by, store_url=store, environment=environment, log=log)
    servers = (
        "The servers on the cluster serve this version."
        if load_environment(environment).on_cluster
        else SERVERS_FOLLOW
    )
    _show_champion(champion, name, servers, output)


@app.command()
def history(
    name: ModelName,
    store: StoreUrl = None,
    environment: EnvironmentName = "local",
    output: OutputFormat = Output.TEXT,
) -> None:
    """List the history of a model, oldest first.

    The history consists of promotions, rollbacks and failed attempts.
    """
    models = open_store(store, environment)
    entries, errors = models.readable_history(name)
    for error in errors:
        log(f"note: {error}")
    if not entries:
        models.check_model(name)
    head = ("", "time (UTC)", "action", "by", "reason")
    rows = [
        (str(entry.number), format_time(entry.at), _format_action(entry), entry.by, entry.reason)
        for entry in entries
    ]
    empty = f"No version of {name} in {models.url} was ever promoted."
    print_list(output, [entry.model_dump(mode="json") for entry in entries], rows, head, empty)


def _format_action(entry: "HistoryEntry") -> str:
    """Return the action of a history entry, such as `promote 1 -> 2`."""
    previous = f"{entry.previous} -> " if entry.previous else ""
    return f"{'attempt: ' if entry.attempt else ''}{entry.action} {previous}{entry.version}"


def _show_champion(champion: "Champion", name: str, servers: str, output: Output) -> None:
    text = f"Version {champion.version} is the champion of {name}. {servers}"
    print_result(output, champion.model_dump(mode="json"), text)


def _read_champion(models: "ModelStore", name: str) -> "tuple[Champion | None, str | None]":
    """Return the champion pointer, or the reason why it cannot be read."""
    try:
        return models.champion(name), None
    except DamagedError as error:
        return None, str(error)


def _find_default_version(models: "ModelStore", name: str, champion: "Champion | None") -> int:
    """Return the champion; if its pointer cannot be read, the last promoted version or the latest version."""
    if champion:
        return champion.version
    champions = [entry.version for entry in models.readable_history(name)[0] if not entry.attempt]
    return champions[-1] if champions else models.latest(name)


def _log_damaged_records(models: "ModelStore", name: str) -> None:
    errors = models.readable_history(name)[1]
    models.served_versions(name, errors)
    for error in errors:
        log(f"note: {error}")


def _find_served(
    models: "ModelStore", name: str, environment: str, store: str | None
) -> tuple[dict[str, list[int]], str | None]:
    """Return the served versions by location, and the reason if the local server does not serve the champion.

    On a cluster, these are the versions that the last rollout recorded; a local server is queried.
    """
    from modelyard.pipelines import api
    from modelyard.pipelines.environments.load import load_environment
    from modelyard.pipelines.serving.platforms import find_controller

    locations = {record.location: list(record.versions) for record in models.served_versions(name, [])}
    if load_environment(environment).on_cluster:
        return locations, None
    section = api.load_store_section(store, environment)
    status = find_controller(name, environment, get_user(), store=section).platform.status(errors=True)
    if status.stable is None:
        return locations, None
    return {str(status.stable.image): [status.stable.version], **locations}, next(iter(status.errors), None)


def _summarize_model(models: "ModelStore", name: str, environment: str, store: str | None) -> dict[str, Any]:
    locations, serving_error = _find_served(models, name, environment, store)
    champion, error = _read_champion(models, name)
    manifest, versions = None, models.versions(name)
    if champion:
        manifest, error = _read_manifest(models, name, champion.version)
    return {
        "model": name,
        "champion": champion.version if champion else None,
        "metric": manifest.metrics.primary if manifest else None,
        "value": manifest.metrics.primary_metric.value if manifest else None,
        "run": manifest.run_id if manifest else None,
        "versions": len(versions),
        "latest": versions[-1] if versions else None,
        "served": sorted({version for versions in locations.values() for version in versions}),
        "error": error or serving_error,
    }


def _list_versions(
    models: "ModelStore", name: str, environment: str, store: str | None
) -> list[dict[str, Any]]:
    locations, _ = _find_served(models, name, environment, store)
    models.check_model(name)
    (champion, _), rows = _read_champion(models, name), []
    for version in sorted({*models.versions(name), *models.incomplete_champions(name)}):
        manifest, error = _read_manifest(models, name, version)
        rows.append(
            {
                "version": version,
                "champion": champion is not None and champion.version == version,
                "metric": manifest.metrics.primary if manifest else None,
                "value": manifest.metrics.primary_metric.value if manifest else None,
                "created": manifest.created if manifest else None,
                "run": manifest.run_id if manifest else None,
                "fingerprint": manifest.run if manifest else None,
                "served": any(version in versions for versions in locations.values()),
                "error": error,
            }
        )
    return rows


def _read_manifest(
    models: "ModelStore", name: str, version: int
) -> "tuple[Manifest, None] | tuple[None, str]":
    """Return the manifest of a version, or the reason why it cannot be read."""
    try:
        return models.manifest(name, version), None
    except StoreError as error:
        return None, str(error)


def _format_facts(manifest: "Manifest", is_champion: bool) -> dict[str, str]:
    from modelyard.components.artifacts import format_number

    metric, signature = manifest.metrics.primary_metric, manifest.signature
    inputs, outputs = signature.input, signature.output
    low, high = format_number(metric.low), format_number(metric.high)
    return {
        "version": f"{manifest.version} of {manifest.model}" + (", the champion" if is_champion else ""),
        "created": f"{format_time(manifest.created)} UTC",
        "problem": signature.problem,
        manifest.metrics.primary: f"{format_number(metric.value)}  (95 % interval {low} to {high})",
        "decision of the gate": f"{manifest.decision.decision}: {manifest.decision.reason}",
        "input": f"{inputs.dtype} {' x '.join(map(str, inputs.shape))}",
        "output": f"{outputs.meaning}: {', '.join(outputs.names)}",
        "run": manifest.run_id or "none: published manually",
        "fingerprint": manifest.run[:FINGERPRINT_DIGITS],
        "data": manifest.data[:FINGERPRINT_DIGITS],
        "files": ", ".join(manifest.files),
    }


def _format_cell(key: str, value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or format_cell(None)
    if isinstance(value, bool):
        return "yes" if value else ""
    return value[:FINGERPRINT_DIGITS] if key == "fingerprint" and value else format_cell(value)
