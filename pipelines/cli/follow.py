"""A run on Kubeflow Pipelines with a live table of its steps, to its end."""

import shlex
from typing import TYPE_CHECKING, Any

import typer

from modelyard.components.errors import BackendError
from modelyard.pipelines.cli.failures import INTERRUPTED, report
from modelyard.pipelines.cli.options import Output, emit
from modelyard.pipelines.cli.run import conclude, steps_table

if TYPE_CHECKING:
    from modelyard.pipelines.environments.environment import Environment
    from modelyard.pipelines.runners.kfp.client import Backend


def follow(
    backend: "Backend",
    run: Any,
    environment: "Environment",
    again: str,
    leave_stuck: bool,
    output: Output,
    plan_key: str | None = None,
) -> None:
    """Follow a run to its end, show its results, and end with its exit code.

    Ctrl-C ends this command and not the run.

    Args:
        backend: the server.
        run: the run, as the server gives it.
        environment: where it runs.
        again: the command that follows it.
        leave_stuck: do not cancel it when one of its pods cannot start.
        output: for whom.
        plan_key: what connects it with its plan; None when that is not known.
    """
    try:
        from rich.console import Console
        from rich.live import Live

        from modelyard.pipelines.planning import comparison
        from modelyard.pipelines.runners import runs
        from modelyard.pipelines.runners.kfp.following import Following

        following = Following(backend, run, environment, leave_stuck)
        with Live(
            get_renderable=lambda: steps_table(following),
            console=Console(stderr=True),
            refresh_per_second=8,
            redirect_stdout=False,
            redirect_stderr=False,
        ):
            summary = following()
        comparison.keep(runs.of_pipelines(summary.run), plan_key, summary)
        conclude(summary, None, environment, output)
    except KeyboardInterrupt:
        message = f"Ctrl-C does not end the run {run.display_name}. Follow it: {again}"
        raise typer.Exit(report("Interrupted", message, INTERRUPTED, output is Output.JSON)) from None
    except BackendError as error:
        raise BackendError(f"{error} The run {run.display_name} goes on. Follow it: {again}") from error


def show_once(backend: "Backend", run: Any, environment: "Environment", output: Output) -> None:
    """Show a run as it is now."""
    from rich.console import Console

    from modelyard.pipelines.runners.kfp.following import Following
    from modelyard.pipelines.runners.kfp.runs import record

    following = Following(backend, run, environment)
    following.look()
    shown = record(run)
    if output is Output.JSON:
        steps = [step.model_dump(mode="json") for step in following.steps()]
        emit({**shown.model_dump(mode="json"), "steps": steps})
        return
    console = Console()
    console.print(
        f"{shown.name}: {shown.state}, started {shown.created_at:%Y-%m-%d %H:%M:%S} UTC, "
        f"{shown.seconds:.0f} s, {shown.id}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(steps_table(following))


def command(run: str, environment: str, endpoint: str | None, namespace: str | None) -> str:
    """Return the command that follows a run, with what this one was told of where Kubeflow Pipelines is."""
    words = ["modelyard", "runs", "show", run, "-e", environment, "--wait"]
    given = {"--endpoint": endpoint, "--namespace": namespace}
    return shlex.join(
        [*words, *(word for option, value in given.items() if value for word in (option, value))]
    )
