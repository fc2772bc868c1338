"""The folder of a run on this machine.

<home>/runs/20261124-091502-3f9a/
    start.json    arguments and parent process of the run; only for a run of this machine
    events.jsonl  events
    run.json      the summary, written when the run ends
    report.html   the report of evaluate
    lifeline      locked while the parent process is alive
    cancelled     created by `modelyard runs cancel`
    logs/         one file per step
    artifacts/    outputs of the steps; the cache refers to them
    scratch/      temporary files; removed when the run ends
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
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from modelyard.components import events, lifeline, records
from modelyard.components.artifacts import write
from modelyard.components.errors import (
    EXHAUSTION_ERRNOS,
    ConfigError,
    MachineError,
    ModelyardError,
    describe_unusable_path,
    find_machine_error,
)
from modelyard.components.step import raise_file_limit
from modelyard.pipelines.runners.base import RunSummary

NAME = re.compile(r"\b\d{8}-\d{6}-[0-9a-f]{4}\b")
MIN_FREE_BYTES = 16 * 10**6
RESERVED_BYTES = 2**18  # for the summary of a run that fills its disk
MIN_OPEN_FILES = 128
MAX_HOME_BYTES = 4096 - 400  # maximum length of a path, minus the longest path below the folder
START, EVENTS, CANCELLED = "start.json", "events.jsonl", "cancelled"


def home() -> Path:
    """Return the folder for runs and cache: MODELYARD_HOME, or .modelyard in the working directory.

    Raises:
        ConfigError: its path has control characters or is not UTF-8.
    """
    folder = Path(os.environ.get("MODELYARD_HOME", ".modelyard")).absolute()
    if reason := describe_unusable_path(folder):
        raise ConfigError(
            f"The folder for runs is {str(folder)!a}, which {reason}. Set MODELYARD_HOME to another folder."
        )
    return folder


@contextmanager
def create(base: Path) -> Iterator[Path]:
    """Create the folder of a new run and hold its lifeline; remove temporary files of killed runs.

    Raises:
        ConfigError: the folder cannot be used.
        MachineError: there is too little disk space.
    """
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    folder = base / "runs" / name
    try:
        check_folder(base)
        for killed_run in _killed_runs(base):
            _remove_temporary_files(killed_run)
        for subfolder in ("logs", "artifacts"):
            (folder / subfolder).mkdir(parents=True)
    except OSError as error:
        raise _folder_error(base, error) from error
    with (
        lifeline.hold(folder / "lifeline") as variables,
        _set_variables(
            {
                **variables,
                "TMPDIR": str(folder / "scratch"),
                records.RUN_FOLDER: str(folder),
                records.RUN_ID: folder.name,
                events.VARIABLE: str(folder / EVENTS),
            }
        ),
    ):
        (folder / "scratch").mkdir()  # after the lifeline: a run with scratch and a free lifeline was killed
        (folder / "scratch" / "reserved").write_bytes(bytes(RESERVED_BYTES))
        try:
            yield folder
        finally:
            _remove_temporary_files(folder)
            tempfile.tempdir = None  # it caches TMPDIR


def check_folder(folder: Path) -> None:
    """Check a folder for runs, which may not exist yet, and the limits of this process.

    Raises:
        ConfigError: this user cannot write to it, or its file system has no locks or no memory maps.
        MachineError: there is too little disk space, or a limit is too low.
    """
    try:
        if len(os.fsencode(folder)) > MAX_HOME_BYTES:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        with tempfile.NamedTemporaryFile(dir=find_nearest_existing(folder), prefix=".modelyard-") as file:
            file.write(b"\0")
            file.flush()
            lifeline.lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                mmap.mmap(file.fileno(), 1, access=mmap.ACCESS_READ).close()
            except OSError as error:
                raise OSError(error.errno, f"no memory maps ({error.strerror})") from error
    except OSError as error:
        raise _folder_error(folder, error) from error
    free = shutil.disk_usage(find_nearest_existing(folder)).free
    if free < MIN_FREE_BYTES:
        raise MachineError(
            f"{folder} has {free / 1e6:.1f} MB free; a run needs at least {MIN_FREE_BYTES / 1e6:.0f} MB. "
            "Delete files there, or set MODELYARD_HOME to a folder on another disk."
        )
    for limit, minimum, option, unit in (
        (raise_file_limit(), MIN_OPEN_FILES, "-n", "open files"),
        (resource.getrlimit(resource.RLIMIT_FSIZE)[0], MIN_FREE_BYTES, "-f", "bytes per file"),
    ):
        if limit != resource.RLIM_INFINITY and limit < minimum:
            raise MachineError(
                f"`ulimit {option}` limits this process to {limit} {unit}; a run needs at least {minimum}. "
                "Raise the limit."
            )


def _folder_error(base: Path, error: OSError) -> ModelyardError:
    if error.errno in EXHAUSTION_ERRNOS and (machine_error := find_machine_error(error, base)):
        return machine_error
    return ConfigError(
        f"The folder for runs, {base}, cannot be used: {error.strerror}. Set MODELYARD_HOME to a folder on "
        "a local disk with write permission."
    )


def find_nearest_existing(folder: Path) -> Path:
    """Return a folder, or its nearest parent that exists for this user."""
    return next(path for path in (folder, *folder.parents) if os.path.exists(path))  # noqa: PTH110 - never raises


def kfp_run_folder(name: str) -> Path:
    """Return the folder for files of a run on Kubeflow Pipelines; it may not exist."""
    return home() / "runs" / re.sub(r"[^\w.-]+", "-", name).strip(".")


def parse_start_time(name: str) -> float:
    """Return the start of a run in epoch seconds, from its name."""
    return datetime.strptime(name[:15], "%Y%m%d-%H%M%S").timestamp()


def write_summary(folder: Path, summary: RunSummary) -> None:
    """Write the summary; on a full disk, after removing temporary files."""
    try:
        write(folder / "run.json", summary)
    except OSError:
        _remove_temporary_files(folder)
        write(folder / "run.json", summary)


def _killed_runs(base: Path) -> list[Path]:
    """Return the runs with a scratch folder and a free lifeline."""
    scratches = (base / "runs").glob("*/scratch")
    return [path.parent for path in scratches if not lifeline.is_held(path.parent / "lifeline")]


def _remove_temporary_files(folder: Path) -> None:
    for path in (folder / "artifacts").rglob("*.partial"):
        shutil.rmtree(path, ignore_errors=True)
    shutil.rmtree(folder / "scratch", ignore_errors=True)


@contextmanager
def _set_variables(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables during a block; steps inherit them."""
    previous = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in previous.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
