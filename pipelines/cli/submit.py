"""`submit`: the pipeline on Kubeflow Pipelines."""

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
    when_unchanged,
)

if TYPE_CHECKING:
    from rich.console import Console

    from modelyard.pipelines.runners.differences import Change
    from modelyard.pipelines.runners.select import Place


@on_kfp
def submit(
    place: "Place",
    output: Output,
    config: ConfigFile = None,
    overrides: Overrides = None,
    skip_unchanged: SkipUnchanged = False,
    force_after: ForceAfter = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and show what would be sent; send nothing.")
    ] = False,
    wait: Wait = False,
    leave_stuck: LeaveStuck = False,
    budget: Budget = None,
    anyway: Anyway = False,
) -> None:
    """Start a run on Kubeflow Pipelines.

    Checks the submission first, also against its last plan, and shows what changed since the last run.
    Uploads a dataset and code of this machine to the store, and the pipeline to the server, if they are new.
    """
    from rich.console import Console

    from modelyard.pipelines.cli.progress import complete
    from modelyard.pipelines.compile.preflight import check
    from modelyard.pipelines.compile.uploads import gather
    from modelyard.pipelines.config.config import load
    from modelyard.pipelines.planning import comparison
    from modelyard.pipelines.planning.guard import guard
    from modelyard.pipelines.runners import runs, select
    from modelyard.pipelines.runners.kfp import submission
    from modelyard.pipelines.steps import STEPS

    options = when_unchanged(skip_unchanged, force_after)
    place = replace(place, overrides=overrides or ())
    server = select.server(place)  # there is one, before anything is packed for it
    environment = server.environment
    console = Console(stderr=True)
    settings = load(config, overrides or (), store=environment.model_store())
    with console.status("checking"):
        uploads = gather(settings, environment)
        if not anyway:
            guard(uploads.config, environment, server.name, runs.home(), budget)
        plan_key = comparison.identity(uploads.config, environment) if wait else None
        prepared = submission.prepare(uploads.config, environment, options)
        notes = check(prepared.arguments, environment)
        backend = server.backend
        found = submission.look(backend, prepared)
        since, changes = submission.compare(backend, prepared, found)
        facts = {
            "pipeline": prepared.pipeline,
            "new_pipeline": found.pipeline_id is None,
            "version": prepared.version,
            "new_version": found.version_id is None,
            "since": since,
            "differences": [one.model_dump() for one in changes],
            "notes": notes,
            "images": {step: environment.image(step) for step in STEPS},
            "uploads": [f"{one.key}: {one.name}" for one in uploads.files],
            "endpoint": backend.endpoint.url,
            "namespace": backend.namespace,
            "service_account": prepared.service_account,
            "pipeline_root": prepared.pipeline_root,
        }
    if dry_run:
        emit(facts) if output is Output.JSON else _show(facts, changes, Console(), whole=True)
        return
    _show(facts, changes, console, whole=False)
    uploads.send(console)
    run = server.submit(prepared, found)
    if wait:
        complete(run, output, plan_key, leave_stuck)
    text = f"{run.name} is accepted. Follow it: {run.follow_command()}"
    show(output, {"run": run.name, "id": run.id, **facts}, text)


def _show(facts: dict[str, Any], changes: Sequence["Change"], console: "Console", whole: bool) -> None:
    from rich.text import Text

    new = {True: "new", False: "known"}
    account, root = facts["service_account"], facts["pipeline_root"]
    rows = [
        ("pipeline", f"{facts['pipeline']} ({new[facts['new_pipeline']]})"),
        ("version", f"{facts['version']} ({new[facts['new_version']]})"),
        ("runs in", f"{facts['namespace']} as {account}, artifacts in {root}"),
        *(("image", f"{step}: {image}") for step, image in facts["images"].items() if whole),
        *(("upload", upload) for upload in facts["uploads"]),
        *(("note", note) for note in facts["notes"]),
        *(("changes", str(change)) for change in changes),
    ]
    if not changes:
        since = facts["since"]
        rows.append(("changes", f"nothing since {since}" if since else "its first run here"))
    for name, value in rows:  # whole lines: URLs are there to be copied
        console.print(Text.assemble((f"{name:<12}", "dim"), value), soft_wrap=True)
