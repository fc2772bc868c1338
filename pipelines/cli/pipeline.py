"""`run`, `plan`, `compile` and `submit`: the pipeline of a configuration."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelyard.pipelines.cli.options import (
    Anyway,
    Budget,
    ConfigFile,
    EnvironmentName,
    ForceAfter,
    LeaveStuck,
    Output,
    OutputFormat,
    Overrides,
    SkipUnchanged,
    Wait,
    parse_skip_options,
    print_json,
    print_result,
    with_kfp_options,
)

if TYPE_CHECKING:
    from rich.console import Console

    from modelyard.pipelines.runners.differences import Change
    from modelyard.pipelines.runners.select import RunScope


def run(
    config: ConfigFile = None,
    environment: EnvironmentName = "local",
    overrides: Overrides = None,
    skip_unchanged: SkipUnchanged = False,
    force_after: ForceAfter = None,
    output: OutputFormat = Output.TEXT,
) -> None:
    """Run the pipeline on this machine or on a cluster.

    Each step is a process on this machine or, if the environment is a cluster, a pod. Steps with unchanged
    inputs come from the cache. Prints the progress to stderr and the summary to stdout.
    """
    from rich.console import Console

    options, console = parse_skip_options(skip_unchanged, force_after), Console(stderr=True)
    with console.status("starting"):
        from modelyard.pipelines import api
        from modelyard.pipelines.cli.progress import complete
    complete(api.start(config, environment, overrides or (), options, console), output)


def plan(
    config: ConfigFile = None,
    environment: EnvironmentName = "local",
    overrides: Overrides = None,
    probe: Annotated[
        bool,
        typer.Option("--probe", help="Measure training steps on the machine or cluster of the environment."),
    ] = False,
    probe_seconds: Annotated[
        float,
        typer.Option(
            min=1,
            metavar="S",
            help="Duration of the measured training steps in seconds, without startup and export.",
        ),
    ] = 20.0,
    learning_curve: Annotated[
        bool,
        typer.Option(
            "--learning-curve",
            help="Train on increasing fractions of the data on this machine, to estimate the benefit of "
            "more data.",
        ),
    ] = False,
    budget: Budget = None,
    price: Annotated[
        float | None,
        typer.Option(min=0, metavar="USD", help="Price of the machine per hour; overrides --prices."),
    ] = None,
    prices: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="YAML file with accelerators and prices. Default: the price list of modelyard.",
        ),
    ] = None,
    fetch: Annotated[
        bool,
        typer.Option(
            "--fetch", help="Download data that is not on this machine, as --probe and --learning-curve do."
        ),
    ] = False,
    examples: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Number of examples, for CIFAR-10 or images with data.resize that are not downloaded.",
        ),
    ] = None,
    outputs: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="With --examples, for images: number of model outputs, such as the number of classes.",
        ),
    ] = None,
    all_accelerators: Annotated[
        bool, typer.Option("--all", help="List all accelerators, not only the first five.")
    ] = False,
    output: OutputFormat = Output.TEXT,
) -> None:
    """Estimate memory, time and cost of a run.

    Nothing is deployed; training steps are executed only with --probe or --learning-curve. The prepared data
    is cached for later runs. The exit code is 13 if the run cannot succeed or exceeds --budget.
    """
    from rich.console import Console
    from rich.text import Text

    from modelyard.components.errors import PlanError
    from modelyard.pipelines import api
    from modelyard.pipelines.planning.planner import PlanRequest
    from modelyard.pipelines.planning.render import print_plan

    request = PlanRequest(
        probe=probe,
        seconds=probe_seconds,
        learning_curve=learning_curve,
        fetch=fetch,
        examples=examples,
        outputs=outputs,
        prices=prices,
        price=price,
        budget=budget,
    )
    with Console(stderr=True).status("starting") as status:
        warn = partial(status.console.print, style="yellow", markup=False, soft_wrap=True)
        log = lambda message: status.update(Text(message))  # noqa: E731 - a pod's log is not markup
        result = api.plan(config, environment, overrides or (), request, log=log, warn=warn)
    if output is Output.JSON:
        print_json(result.model_dump(mode="json"))
    else:
        command = ["modelyard", "plan", *([str(config)] if config else ())]
        command += ["-e", environment] if environment != "local" else []
        command += [part for override in overrides or () for part in ("--set", override)]
        print_plan(result, Console(), all_accelerators, shlex.join([*command, "--probe"]))
    raise typer.Exit(PlanError.exit_code if result.errors or result.exceeded_limits else 0)


def compile_(
    file: Annotated[Path, typer.Option("-o", "--file", metavar="FILE", help="The .yaml file to write.")],
    config: ConfigFile = None,
    environment: EnvironmentName = "local",
    overrides: Overrides = None,
) -> None:
    """Compile the pipeline to a YAML file for Kubeflow Pipelines.

    The configuration becomes the default arguments of the pipeline. The environment determines the image,
    resources and node of each step.
    """
    if file.suffix not in (".yaml", ".yml"):
        raise typer.BadParameter(f"{file} does not end with .yaml or .yml.", param_hint="-o")
    if not file.absolute().parent.is_dir():
        raise typer.BadParameter(f"The folder {file.parent} does not exist.", param_hint="-o")
    from modelyard.pipelines import api

    api.compile_pipeline(file, config, environment, overrides or ())
    typer.echo(str(file))


@with_kfp_options
def submit(
    scope: "RunScope",
    output: Output,
    config: ConfigFile = None,
    overrides: Overrides = None,
    skip_unchanged: SkipUnchanged = False,
    force_after: ForceAfter = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and show the submission without sending it.")
    ] = False,
    wait: Wait = False,
    leave_stuck: LeaveStuck = False,
    budget: Budget = None,
    anyway: Anyway = False,
) -> None:
    """Start a run on Kubeflow Pipelines.

    Checks the configuration, the images and the last plan, and shows the changes since the last run. Uploads
    local data and code to the store, and the pipeline to Kubeflow Pipelines, if they are missing there.
    """
    from rich.console import Console

    from modelyard.pipelines import api
    from modelyard.pipelines.cli.progress import complete
    from modelyard.pipelines.steps import STEPS

    options = parse_skip_options(skip_unchanged, force_after)
    console = Console(stderr=True)
    with console.status("checking"):
        prepared = api.prepare_submission(
            replace(scope, overrides=overrides or ()), config, options, budget, anyway
        )
        server, submission = prepared.server, prepared.submission
        facts = {
            "pipeline": submission.pipeline,
            "new_pipeline": prepared.existing_objects.pipeline_id is None,
            "version": submission.version,
            "new_version": prepared.existing_objects.version_id is None,
            "last_run": prepared.last_run,
            "differences": [change.model_dump() for change in prepared.changes],
            "notes": prepared.notes,
            "images": {step: server.environment.image(step) for step in STEPS},
            "uploads": [f"{file.key}: {file.name}" for file in prepared.uploads.files],
            "endpoint": server.backend.endpoint.url,
            "namespace": server.backend.namespace,
            "service_account": submission.service_account,
            "pipeline_root": submission.pipeline_root,
        }
    if dry_run:
        if output is Output.JSON:
            print_json(facts)
        else:
            _print_submission(facts, prepared.changes, Console(), show_images=True)
        return
    _print_submission(facts, prepared.changes, console, show_images=False)
    run = prepared.send(console)
    if wait:
        complete(run, output, leave_stuck)
    text = f"Submitted run {run.name}. Follow it: {run.follow_command()}"
    print_result(output, {"run": run.name, "id": run.id, **facts}, text)


def _print_submission(
    facts: dict[str, Any], changes: Sequence["Change"], console: "Console", show_images: bool
) -> None:
    from rich.text import Text

    new = {True: "new", False: "exists"}
    account, root = facts["service_account"], facts["pipeline_root"]
    rows = [
        ("pipeline", f"{facts['pipeline']} ({new[facts['new_pipeline']]})"),
        ("version", f"{facts['version']} ({new[facts['new_version']]})"),
        ("runs in", f"{facts['namespace']} as {account}, artifacts in {root}"),
        *(("image", f"{step}: {image}") for step, image in facts["images"].items() if show_images),
        *(("upload", upload) for upload in facts["uploads"]),
        *(("note", note) for note in facts["notes"]),
        *(("changes", str(change)) for change in changes),
    ]
    if not changes:
        last_run = facts["last_run"]
        rows.append(("changes", f"none since {last_run}" if last_run else "first run"))
    for name, value in rows:  # no wrapping: URLs are copied
        console.print(Text.assemble((f"{name:<12}", "dim"), value), soft_wrap=True)
