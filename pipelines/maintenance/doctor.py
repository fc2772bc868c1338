"""`modelyard doctor`: whether this machine can run the pipeline and serve, one function per check."""

import os
import platform
import shutil
import socket
import tempfile
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from modelyard.components.errors import ModelyardError
from modelyard.components.serve.settings import Serving
from modelyard.components.store.models import open_store
from modelyard.components.store.settings import Store
from modelyard.components.store.storage import local_path, open_objects
from modelyard.pipelines.runners import runs

MINIMUM_DISK = 2 * 2**30


class Check(NamedTuple):
    """The name of a check, whether it passed, and what it found; if it failed, also what to do."""

    name: str
    ok: bool
    found: str


def checkup(store: Store, serving: Serving) -> list[Check]:
    """Return all checks; files that they write are gone when they end."""
    return [python(), packages(), cpu(), disk(), models(store), port(serving)]


def python() -> Check:
    """Check the version of Python."""
    required = metadata("modelyard")["Requires-Python"]
    found = platform.python_version()
    ok = SpecifierSet(required).contains(found, prereleases=True)
    return Check(
        "python", ok, found if ok else f"{found}, and modelyard needs {required}: recreate the environment"
    )


def packages() -> Check:
    """Check that the required packages are installed in versions that modelyard supports."""
    needed = [Requirement(line) for line in requires("modelyard") or []]
    needed = [one for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    problems = [problem for one in needed if (problem := _problem(one))]
    if problems:
        return Check("packages", False, f"{'; '.join(problems)}: install modelyard again")
    shown = ", ".join(f"{name} {version(name)}" for name in ("kfp", "keras", "tensorflow", "onnxruntime"))
    return Check("packages", True, f"{len(needed)}, with {shown}")


def cpu() -> Check:
    """Check for AVX; without it TensorFlow crashes with `Illegal instruction`."""
    info = Path("/proc/cpuinfo")
    if platform.machine() not in ("x86_64", "AMD64") or not info.is_file():
        return Check("cpu", True, f"{platform.machine()}, {os.cpu_count()} cores")
    flags = next((line for line in info.read_text().splitlines() if line.startswith("flags")), "").split()
    found = [flag for flag in ("avx", "avx2", "fma", "avx512f", "amx_bf16") if flag in flags]
    if "avx" not in found:
        return Check("cpu", False, "no AVX, which TensorFlow's wheels need: use another machine")
    return Check("cpu", True, f"{os.cpu_count()} cores with {', '.join(found)}")


def disk() -> Check:
    """Check the folder for runs and their cache: that it can be used, and the free space."""
    try:
        folder = runs.home()
        runs.check_folder(folder)
    except ModelyardError as error:
        return Check("disk", False, str(error))
    free = shutil.disk_usage(runs.existing(folder)).free
    found = f"{free / 2**30:.1f} GiB free for {folder}"
    if free < MINIMUM_DISK:
        return Check(
            "disk", False, f"{found}, and a run needs about 2 GiB: set MODELYARD_HOME to another disk"
        )
    return Check("disk", True, found)


def models(store: Store) -> Check:
    """Check that the model store can be read and, when it is a folder, written."""
    try:
        store_models = open_store(store)
        names = store_models.names()
    except ModelyardError as error:
        return Check("store", False, str(error))
    if path := local_path(store.url, "store.url"):
        try:
            with tempfile.TemporaryDirectory(dir=runs.existing(path), prefix=".modelyard-") as scratch:
                objects = open_objects(Store(url=scratch))
                objects.create("doctor/probe", b"1")
                objects.replace("doctor/probe", b"2", objects.read("doctor/probe")[1])
        except OSError as error:
            return Check("store", False, f"{path} cannot be written ({error.strerror}): change store.url")
        except ModelyardError as error:
            return Check("store", False, str(error).replace(scratch, str(path)))
    return Check("store", True, f"{store_models.url}, {len(names)} models")


def port(serving: Serving) -> Check:
    """Check that the server's port is free."""
    address = f"{serving.host}:{serving.port}"
    family = socket.AF_INET6 if ":" in serving.host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((serving.host, serving.port))
            listener.listen(1)
        except OSError as error:
            remedy = "stop what uses it, or serve with another --port"
            return Check("port", False, f"{address}: {error.strerror or error}; {remedy}")
    return Check("port", True, f"{address} is free")


def _problem(requirement: Requirement) -> str | None:
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return f"{requirement.name} is missing"
    if requirement.specifier.contains(found, prereleases=True):
        return None
    return f"{requirement.name} is {found} and must be {requirement.specifier}"
