"""`deploy` and `rollout status|promote|abort`: the step deploy as commands."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.pipelines.cli.help import Group
from modelyard.pipelines.cli.options import (
    CertificateAuthorities,
    EnvironmentName,
    ModelName,
    Output,
    OutputFormat,
    Reason,
    Version,
    check_server_url,
    format_time,
    get_user,
    log,
    print_json,
    print_result,
    print_rows,
)

if TYPE_CHECKING:
    from modelyard.components.artifacts import Outcome
    from modelyard.components.deploy.platforms.base import Servers
    from modelyard.components.deploy.status import RolloutStatus

app = Group(name="rollout", help="Show, promote or abort the rollout of a model.", no_args_is_help=True)


def deploy(
    name: ModelName,
    version: Version,
    environment: EnvironmentName,
    reason: Reason = "deployed manually",
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override a key of the sections rollout, serving or environment, such as "
            "rollout.canary_share=0.2. Repeatable.",
        ),
    ] = None,
    output: OutputFormat = Output.TEXT,
) -> None:
    """Roll out a version of a model.

    Starts servers with the version and verifies their predictions, runs the canary analysis on a cluster,
    then promotes the version or removes its servers.
    """
    from modelyard.pipelines import api

    outcome = api.deploy(name, version, environment, overrides or (), reason=reason, by=get_user(), log=log)
    _show_outcome(outcome, output)


@app.command()
def status(
    name: ModelName,
    environment: EnvironmentName = "local",
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            callback=check_server_url,
            help="URL of a running server. The exit code is 8 if no server of the model responds there. "
            "Default: serving.host and serving.port of the champion.",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File whose first line is the bearer token. Default: serving.token_file of the champion.",
        ),
    ] = None,
    ca: CertificateAuthorities = None,
    output: OutputFormat = Output.TEXT,
) -> None:
    """Show the servers and the rollout of a model.

    If the champion is not served, also shows the reason.
    """
    from modelyard.pipelines import api

    rollout = api.rollout_status(name, environment, server_url=url, token_file=token_file, ca=ca)
    if output is Output.JSON:
        print_json(rollout.model_dump(mode="json"))
    else:
        print_rows(_format_rows(rollout))


@app.command()
def promote(
    name: ModelName,
    environment: EnvironmentName,
    reason: Reason = "promoted manually",
    output: OutputFormat = Output.TEXT,
) -> None:
    """End the canary analysis and promote the candidate."""
    from modelyard.pipelines import api

    outcome = api.promote_candidate(name, environment, reason=reason, by=get_user(), log=log)
    _show_outcome(outcome, output)


@app.command()
def abort(
    name: ModelName,
    environment: EnvironmentName,
    reason: Reason = "aborted manually",
    output: OutputFormat = Output.TEXT,
) -> None:
    """End the rollout and remove the candidate and its pods.

    The run or `modelyard deploy` command that is rolling out the candidate ends with the decision `hold`.
    """
    from modelyard.pipelines import api

    version = api.abort_rollout(name, environment, reason=reason, by=get_user())
    text = f"The candidate, version {version}, was removed." if version else f"{name} has no candidate."
    print_result(output, {"model": name, "version": version}, text)


def _show_outcome(outcome: "Outcome", output: Output) -> None:
    print_result(output, outcome.model_dump(mode="json"), f"{outcome.decision}: {outcome.reason}")


def _format_rows(rollout: "RolloutStatus") -> list[tuple[str, str]]:
    traffic = "stable and candidate" if rollout.canary else "stable" if rollout.stable else "none"
    rows = [
        ("model", f"{rollout.model} ({rollout.location})"),
        ("champion", f"version {rollout.champion}" if rollout.champion else "none"),
        ("stable", _format_servers(rollout.stable)),
        ("candidate", _format_servers(rollout.candidate) + (", abandoned" if rollout.abandoned else "")),
        ("traffic to", traffic),
    ]
    rows += [("error", error) for error in rollout.errors]
    if last := rollout.last_entry:
        text = f"{format_time(last.at)} UTC, version {last.version}, by {last.by}: {last.reason}"
        rows.append(("last history entry", text))
    return rows


def _format_servers(servers: "Servers | None") -> str:
    if servers is None:
        return "none"
    return f"version {servers.version}, {servers.ready} of {servers.desired} ready, {servers.image}"
