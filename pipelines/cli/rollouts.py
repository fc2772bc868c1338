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

app = typer.Typer(name="rollout", help="Show, promote or abort a rollout on a cluster.", no_args_is_help=True)
Version = Annotated[int, typer.Argument(metavar="VERSION", min=1, help="Its version.", show_default=False)]


def deploy(
    name: ModelName,
    version: Version,
    environment: EnvironmentName,
    reason: Reason = "deployed by hand",
    overrides: Overrides = None,
    output: OutputFormat = Output.TEXT,
) -> None:
    """Roll out a version on a cluster.

    It is verified, analyzed as a canary, and then promoted; or rolled back, with the reason.
    """
    from modelyard.components.deploy.rollout import roll_out
    from modelyard.components.deploy.verification import pin_version
    from modelyard.pipelines.serving.platforms import find_platform

    platform = find_platform(name, environment, overrides or (), _log, version)
    _show(roll_out(platform, pin_version(platform.models, name, version), None, reason, user()), output)


@app.command()
def status(name: ModelName, environment: EnvironmentName, output: OutputFormat = Output.TEXT) -> None:
    """Show what serves a model, and what keeps pods from running."""
    from modelyard.components.deploy.status import status
    from modelyard.pipelines.serving.platforms import find_deployment

    model = find_deployment(name, environment)
    found = status(model)
    if not (found.champion or found.stable or found.candidate):
        latest(model.models, name)  # raises when there is no such model
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
    """Promote the candidate now, without further canary analysis."""
    from modelyard.components.deploy import objects
    from modelyard.components.deploy.rollout import promote_candidate
    from modelyard.components.deploy.tracks import find_candidate
    from modelyard.pipelines.serving.platforms import find_deployment, find_platform

    found = find_candidate(find_deployment(name, environment))
    platform = find_platform(name, environment, (), _log, objects.version(found), objects.image(found))
    _show(promote_candidate(platform, found, reason, user()), output)


@app.command()
def abort(
    name: ModelName,
    environment: EnvironmentName,
    reason: Reason = "aborted by hand",
    output: OutputFormat = Output.TEXT,
) -> None:
    """Take the candidate from clients and delete it; the deploy that made it ends."""
    from modelyard.components.deploy.rollout import abort
    from modelyard.pipelines.serving.platforms import find_deployment

    model = find_deployment(name, environment)
    version = abort(model, reason, user())
    if version is None:
        latest(model.models, name)  # raises when there is no such model
    if output is Output.JSON:
        emit({"model": name, "aborted": version})
    else:
        typer.echo(f"Version {version} was withdrawn." if version else f"{name} has no candidate.")


def _log(sentence: str) -> None:
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
        ("candidate", _servers(found.candidate) + (", abandoned" if found.abandoned else "")),
        ("clients reach", leads),
    ]
    rows += [("problem", problem) for problem in found.problems]
    return rows + ([("last", found.last)] if found.last else [])


def _servers(servers: "Servers | None") -> str:
    if servers is None:
        return "none"
    return f"version {servers.version}, {servers.ready} of {servers.desired} ready, {servers.image}"
