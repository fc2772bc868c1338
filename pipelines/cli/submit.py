"""`submit`: start a run on Kubeflow Pipelines."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelyard.pipelines.cli.options import (
    Anyway,
    Budget,
    ConfigFile,
    ForceAfter,
    LeaveStuck,
    Output,
    Overrides,
    SkipUnchanged,
    Wait,
    emit,
    on_kfp,
    show,
    skip_options,
)

if TYPE_CHECKING:
    from rich.console import Console

    from modelyard.pipelines.runners.differences import Change
    from modelyard.pipelines.runners.select import RunScope


@on_kfp
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

    Checks the submission, also against the last plan, and shows the changes since the last run. Uploads local
    data and code to the store, and the pipeline to Kubeflow Pipelines, unless they are there.
    """
    from rich.console import Console

    from modelyard.pipelines import api
    from modelyard.pipelines.cli.progress import complete
    from modelyard.pipelines.steps import STEPS

    options = skip_options(skip_unchanged, force_after)
    console = Console(stderr=True)
    with console.status("checking"):
        prepared = api.prepare_submission(
            replace(scope, overrides=overrides or ()), config, options, budget, anyway
        )
        server, sent = prepared.server, prepared.prepared
        facts = {
            "pipeline": sent.pipeline,
            "new_pipeline": prepared.existing.pipeline_id is None,
            "version": sent.version,
            "new_version": prepared.existing.version_id is None,
            "since": prepared.since,
            "differences": [change.model_dump() for change in prepared.changes],
            "notes": prepared.notes,
            "images": {step: server.environment.image(step) for step in STEPS},
            "uploads": [f"{file.key}: {file.name}" for file in prepared.uploads.files],
            "endpoint": server.backend.endpoint.url,
            "namespace": server.backend.namespace,
            "service_account": sent.service_account,
            "pipeline_root": sent.pipeline_root,
        }
    if dry_run:
        emit(facts) if output is Output.JSON else _show(facts, prepared.changes, Console(), show_images=True)
        return
    _show(facts, prepared.changes, console, show_images=False)
    run = prepared.send(console)
    if wait:
        complete(run, output, leave_stuck)
    text = f"Submitted run {run.name}. Follow it: {run.follow_command()}"
    show(output, {"run": run.name, "id": run.id, **facts}, text)


def _show(facts: dict[str, Any], changes: Sequence["Change"], console: "Console", show_images: bool) -> None:
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
        since = facts["since"]
        rows.append(("changes", f"none since {since}" if since else "first run"))
    for name, value in rows:  # no wrapping: URLs are copied
        console.print(Text.assemble((f"{name:<12}", "dim"), value), soft_wrap=True)
