"""`deploy` and `rollout status|promote|abort`: by hand, on a cluster, what the pipeline's step does."""

from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.pipelines.cli.models import latest
from modelyard.pipelines.cli.options import (
    EnvironmentName,
    ModelName,
    Output,
    OutputFormat,
    Overrides,
    Reason,
    emit,
    show_rows,
    user,
)

if TYPE_CHECKING:
    from modelyard.components.artifacts import Outcome
    from modelyard.components.deploy.status import Servers, Status

app = typer.Typer(
    name="rollout", help="Look at a rollout on a cluster, and end it by hand.", no_args_is_help=True
)
Version = Annotated[int, typer.Argument(metavar="VERSION", min=1, help="Its version.", show_default=False)]


def deploy(
    name: ModelName,
    version: Version,
    environment: EnvironmentName,
    reason: Reason = "deployed by hand",
    overrides: Overrides = None,
    output: OutputFormat = Output.TEXT,
) -> None:
    """Put a version before clients on a cluster.

    It is verified, watched among clients, and then promoted; or taken back, with the reason.
    """
    from modelyard.components.deploy.rollout import roll_out
    from modelyard.components.deploy.version import pinned
    from modelyard.pipelines.serving.site import find_site

    site = find_site(name, environment, overrides or (), _say, version)
    _show(roll_out(site, pinned(site.models, name, version), None, reason, user()), output)


@app.command()
def status(name: ModelName, environment: EnvironmentName, output: OutputFormat = Output.TEXT) -> None:
    """Show what serves a model, and what keeps pods from it."""
    from modelyard.components.deploy.status import status
    from modelyard.pipelines.serving.site import find_place

    place = find_place(name, environment)
    found = status(place)
    if not (found.champion or found.stable or found.candidate):
        latest(place.models, name)  # raises when there is no such model
    if output is Output.JSON:
        emit(found.model_dump(mode="json"))
    else:
        show_rows(_rows(found))


@app.command()
def promote(
    name: ModelName,
    environment: EnvironmentName,
    reason: Reason = "promoted by hand",
    output: OutputFormat = Output.TEXT,
) -> None:
    """Promote the candidate now, without watching it further."""
    from modelyard.components.deploy import candidate, objects
    from modelyard.components.deploy.rollout import promote_candidate
    from modelyard.pipelines.serving.site import find_place, find_site

    found = candidate.find(find_place(name, environment))
    site = find_site(name, environment, (), _say, objects.version(found), objects.image(found))
    _show(promote_candidate(site, found, reason, user()), output)


@app.command()
def abort(
    name: ModelName,
    environment: EnvironmentName,
    reason: Reason = "aborted by hand",
    output: OutputFormat = Output.TEXT,
) -> None:
    """Take the candidate from clients and delete it; the deploy that made it ends."""
    from modelyard.components.deploy.rollout import abort
    from modelyard.pipelines.serving.site import find_place

    place = find_place(name, environment)
    version = abort(place, reason, user())
    if version is None:
        latest(place.models, name)  # raises when there is no such model
    if output is Output.JSON:
        emit({"model": name, "aborted": version})
    else:
        typer.echo(f"Version {version} is no candidate any more." if version else f"{name} has no candidate.")


def _say(sentence: str) -> None:
    typer.echo(sentence, err=True)


def _show(outcome: "Outcome", output: Output) -> None:
    if output is Output.JSON:
        emit(outcome.model_dump(mode="json"))
    else:
        typer.echo(f"{outcome.decision}: {outcome.reason}")


def _rows(found: "Status") -> list[tuple[str, str]]:
    leads = "stable and candidate" if found.canary else "stable" if found.stable else "nothing"
    rows = [
        ("model", f"{found.model} in {found.namespace}"),
        ("champion", f"version {found.champion}" if found.champion else "none"),
        ("stable", _servers(found.stable)),
        ("candidate", _servers(found.candidate) + (", nobody watches it" if found.watched is False else "")),
        ("clients reach", leads),
    ]
    rows += [("trouble", trouble) for trouble in found.troubles]
    return rows + ([("last", found.last)] if found.last else [])


def _servers(servers: "Servers | None") -> str:
    if servers is None:
        return "none"
    return f"version {servers.version}, {servers.ready} of {servers.wanted} ready, {servers.image}"
