"""`deploy` and `rollout status|promote|abort`: by hand what the pipeline's step does."""

from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.pipelines.cli.options import (
    EnvironmentName,
    ModelName,
    Output,
    OutputFormat,
    Reason,
    Version,
    emit,
    log,
    show,
    show_rows,
    user,
)

if TYPE_CHECKING:
    from modelyard.components.artifacts import Outcome
    from modelyard.components.deploy.platforms.base import Servers
    from modelyard.components.deploy.status import RolloutStatus

app = typer.Typer(
    name="rollout", help="Show what serves a model; promote or abort a rollout.", no_args_is_help=True
)


def deploy(
    name: ModelName,
    version: Version,
    environment: EnvironmentName,
    reason: Reason = "deployed by hand",
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set a key, as in rollout.canary_share=0.2."),
    ] = None,
    output: OutputFormat = Output.TEXT,
) -> None:
    """Roll out a version.

    It is verified, analyzed as a canary on a cluster, and then promoted; or rolled back, with the reason.
    """
    from modelyard.components.deploy.verification import pin_version
    from modelyard.pipelines.serving.platforms import find_controller

    controller = find_controller(
        name, environment, user(), overrides=overrides or (), log=log, version=version, needs_image=True
    )
    _show_outcome(controller.roll_out(pin_version(controller.models, name, version), None, reason), output)


@app.command()
def status(
    name: ModelName,
    environment: EnvironmentName = "local",
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            metavar="ENDPOINT",
            help="URL of a running server. Default: this machine, at the port in the champion's `serving`.",
        ),
    ] = None,
    output: OutputFormat = Output.TEXT,
) -> None:
    """Show what serves a model, and what keeps the champion from being served."""
    from modelyard.components.deploy.status import rollout_status
    from modelyard.pipelines.serving.platforms import find_controller

    controller = find_controller(name, environment, user(), url=url)
    rollout = rollout_status(controller.platform, controller.models)
    if not (rollout.champion or rollout.stable or rollout.candidate):
        controller.models.latest(name)  # raises when there is no such model
    if output is Output.JSON:
        emit(rollout.model_dump(mode="json"))
    else:
        show_rows(_rows(rollout))


@app.command()
def promote(
    name: ModelName,
    environment: EnvironmentName,
    reason: Reason = "promoted by hand",
    output: OutputFormat = Output.TEXT,
) -> None:
    """Promote the candidate now, without further canary analysis."""
    from modelyard.pipelines.serving.platforms import find_controller

    controller = find_controller(name, environment, user())
    if candidate := controller.platform.status().candidate:
        controller = find_controller(name, environment, user(), log=log, version=candidate.version)
    _show_outcome(controller.promote_candidate(reason), output)


@app.command()
def abort(
    name: ModelName,
    environment: EnvironmentName,
    reason: Reason = "aborted by hand",
    output: OutputFormat = Output.TEXT,
) -> None:
    """Withdraw the candidate and delete its pods; the deploy that started it ends."""
    from modelyard.pipelines.serving.platforms import find_controller

    controller = find_controller(name, environment, user())
    version = controller.abort(reason)
    if version is None:
        controller.models.latest(name)  # raises when there is no such model
    text = f"Version {version} was withdrawn." if version else f"{name} has no candidate."
    show(output, {"model": name, "aborted": version}, text)


def _show_outcome(outcome: "Outcome", output: Output) -> None:
    show(output, outcome.model_dump(mode="json"), f"{outcome.decision}: {outcome.reason}")


def _rows(rollout: "RolloutStatus") -> list[tuple[str, str]]:
    leads = "stable and candidate" if rollout.canary else "stable" if rollout.stable else "nothing"
    rows = [
        ("model", f"{rollout.model} ({rollout.location})"),
        ("champion", f"version {rollout.champion}" if rollout.champion else "none"),
        ("stable", _servers(rollout.stable)),
        ("candidate", _servers(rollout.candidate) + (", abandoned" if rollout.abandoned else "")),
        ("clients reach", leads),
    ]
    rows += [("problem", problem) for problem in rollout.problems]
    return rows + ([("last", rollout.last)] if rollout.last else [])


def _servers(servers: "Servers | None") -> str:
    if servers is None:
        return "none"
    return f"version {servers.version}, {servers.ready} of {servers.desired} ready, {servers.image}"
