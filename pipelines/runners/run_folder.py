"""What this machine keeps of runs: a folder for each.

<home>/runs/20261124-091502-3f9a/
    start.json    how it was started; only a run that this machine leads, or led, has one
    events.jsonl  what happened while it worked
    run.json      the summary, written when the run ends
    report.html   what evaluate says, for people
    lifeline      held for as long as the run lives
    cancelled     there since `modelyard runs cancel`
    logs/         one file a step
    artifacts/    what the steps wrote; the cache points into it
    scratch/      temporary files; gone when the run ends
"""

import errno
import fcntl
import mmap
import os
import re
import resource
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from modelyard.components import events, lifeline, records
from modelyard.components.artifacts import Decision, Metrics, Outcome, Prediction, write
from modelyard.components.errors import (
    EXHAUSTED,
    ConfigError,
    DeployError,
    MachineError,
    ModelyardError,
    machine_error,
    unusable_path,
)
from modelyard.components.report.page import add_run_facts
from modelyard.components.step import raise_file_limit
from modelyard.pipelines.runners.base import EvaluationSummary, Failure, RunInfo, RunSummary

NAME = re.compile(r"\b\d{8}-\d{6}-[0-9a-f]{4}\b")
MINIMUM_FREE_BYTES = 16 * 10**6  # bytes
RESERVED_BYTES = 2**18  # bytes kept for the summary of a run that fills its disk
MINIMUM_OPEN_FILES = 128
MAXIMUM_HOME_BYTES = 4096 - 400  # bytes of a path, less what is below it
START, EVENTS, CANCELLED = "start.json", "events.jsonl", "cancelled"


def home() -> Path:
    """Return the folder for runs and cache: MODELYARD_HOME, or .modelyard in the working directory.

    Raises:
        ConfigError: its name has control characters or is not UTF-8, so that it fits in no record.
    """
    folder = Path(os.environ.get("MODELYARD_HOME", ".modelyard")).absolute()
    if why := unusable_path(folder):
        raise ConfigError(
            f"Runs are kept in {str(folder)!a}, which {why}. Set MODELYARD_HOME to another folder."
        )
    return folder


@contextmanager
def create(base: Path) -> Iterator[Path]:
    """Make the folder of a new run and hold its lifeline; clear up after runs that were killed.

    Raises:
        ConfigError: runs cannot be kept there.
        MachineError: there is too little room.
    """
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    run = base / "runs" / name
    try:
        check_folder(base)
        for dead in _killed_runs(base):
            _remove_temporary_files(dead)
        for part in ("logs", "artifacts"):
            (run / part).mkdir(parents=True)
    except OSError as error:
        raise _unusable(base, error) from error
    with (
        lifeline.hold(run / "lifeline") as variables,
        _environment(
            {
                **variables,
                "TMPDIR": str(run / "scratch"),
                records.RUN_FOLDER: str(run),
                records.RUN_ID: run.name,
                events.VARIABLE: str(run / EVENTS),
            }
        ),
    ):
        (run / "scratch").mkdir()  # under the lifeline: a run with scratch and without it is dead
        (run / "scratch" / "room").write_bytes(bytes(RESERVED_BYTES))
        try:
            yield run
        finally:
            _remove_temporary_files(run)
            tempfile.tempdir = None  # it remembers TMPDIR


def check_folder(folder: Path) -> None:
    """Check that runs can be kept in a folder, which may not exist yet, and the limits of this process.

    Raises:
        ConfigError: this user may not write there, or the file system has no locks or no memory maps.
        MachineError: there is too little room, or a limit is too low.
    """
    try:
        if len(os.fsencode(folder)) > MAXIMUM_HOME_BYTES:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        with tempfile.NamedTemporaryFile(dir=nearest_existing(folder), prefix=".modelyard-") as file:
            file.write(b"\0")
            file.flush()
            lifeline.lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                mmap.mmap(file.fileno(), 1, access=mmap.ACCESS_READ).close()
            except OSError as error:
                raise OSError(error.errno, f"no memory maps ({error.strerror})") from error
    except OSError as error:
        raise _unusable(folder, error) from error
    free = shutil.disk_usage(nearest_existing(folder)).free
    if free < MINIMUM_FREE_BYTES:
        raise MachineError(
            f"{folder} has {free / 1e6:.1f} MB free; a run needs at least {MINIMUM_FREE_BYTES / 1e6:.0f} MB. "
            "Make room there, or set MODELYARD_HOME to a folder on another disk."
        )
    for allowed, minimum, option, unit in (
        (raise_file_limit(), MINIMUM_OPEN_FILES, "-n", "open files"),
        (resource.getrlimit(resource.RLIMIT_FSIZE)[0], MINIMUM_FREE_BYTES, "-f", "bytes a file"),
    ):
        if allowed != resource.RLIM_INFINITY and allowed < minimum:
            raise MachineError(
                f"`ulimit {option}` limits this process to {allowed} {unit}, and a run needs at least "
                f"{minimum}: raise it."
            )


def _unusable(base: Path, error: OSError) -> ModelyardError:
    """Return the error for a folder in which no run can be kept."""
    if error.errno in EXHAUSTED and (known := machine_error(error, base)):
        return known
    return ConfigError(
        f"Runs are kept in {base}, which cannot be used: {error.strerror}. Set MODELYARD_HOME to a folder on "
        "a local disk that this user may write."
    )


def nearest_existing(folder: Path) -> Path:
    """Return a folder, or the nearest one around it that this user sees."""
    return next(one for one in (folder, *folder.parents) if os.path.exists(one))  # noqa: PTH110 - raises nothing


def of_kfp_run(name: str) -> Path:
    """Return the folder for what is fetched of a run on Kubeflow Pipelines; it may not be there."""
    return home() / "runs" / re.sub(r"[^\w.-]+", "-", name).strip(".")


def write_summary(run: Path, summary: RunSummary) -> None:
    """Record how the run ended; on a full disk, in the room of its temporary files."""
    try:
        write(run / "run.json", summary)
    except OSError:
        _remove_temporary_files(run)
        write(run / "run.json", summary)


def evaluation_fields(
    decision: Decision, metrics: Metrics, report: Path, outcome: Outcome | None, folder: Path
) -> dict[str, Any]:
    """Return the part of a run's summary with the decision and the metrics; put the report into its folder.

    Args:
        decision: the gate's.
        metrics: evaluate's.
        report: the file.
        outcome: deploy's, if it ran.
        folder: the run's.
    """
    return {
        "version": outcome.version if outcome else None,
        "decision": outcome.decision if outcome else decision.decision,
        "reason": outcome.reason if outcome else decision.reason,
        "rules": decision.rules,
        "notes": decision.notes,
        "metrics": {
            **{name: one.value for name, one in metrics.values.items()},
            **{f"{name}_interval": (one.low, one.high) for name, one in metrics.values.items()},
            "rows": metrics.rows,
            "gain": metrics.gain,
        },
        "evaluation": EvaluationSummary(**{**dict(metrics), "details": {}}, compared_with=decision.champion),
        "report": str(shutil.copyfile(report, folder / "report.html")),
    }


def add_prediction(result: dict[str, Any], predict: Callable[[], Prediction | None]) -> dict[str, Any]:
    """Return a run's result with a prediction of its server; without an answer, the run has failed."""
    try:
        return {**result, "prediction": predict()}
    except DeployError as error:
        return {**result, "state": "failed", "failure": Failure.of(error)}


def add_facts(summary: RunSummary, info: RunInfo) -> RunSummary:
    """Put a run's name, date and source into its report: evaluate does not know them; return the summary."""
    if summary.report:
        held = summary.version and summary.decision != "promote"
        facts = {
            "run": info.name,
            "started": format_minute(info.started),
            "environment": info.environment,
            "data": info.data or "",
            "fingerprint": summary.fingerprint or "",
            "version": f"{summary.version}, {summary.decision}" if summary.version else "",
            "reason": summary.reason or "" if held else "",
        }
        page = Path(summary.report)
        page.write_text(add_run_facts(page.read_text(encoding="utf-8"), facts), encoding="utf-8")
    return summary


def format_minute(time: str) -> str:
    """Return an ISO 8601 time in UTC for people."""
    return f"{time[:16].replace('T', ' ')} UTC"


def _killed_runs(base: Path) -> list[Path]:
    """Return the runs that ended without clearing up: their scratch is there, their lifeline is free."""
    scratches = (base / "runs").glob("*/scratch")
    return [path.parent for path in scratches if not lifeline.is_held(path.parent / "lifeline")]


def _remove_temporary_files(run: Path) -> None:
    for partial in (run / "artifacts").rglob("*.partial"):
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(run / "scratch", ignore_errors=True)


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables, which the steps inherit, for as long as the block lasts."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
