"""`modelyard doctor`: whether this machine can run the pipeline and serve, one function per check."""

import os
import platform
import shutil
import socket
import sys
import tempfile
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from modelyard.components import machine
from modelyard.components.errors import DamagedError, ModelyardError, NotFoundError
from modelyard.components.serve.settings import Serving
from modelyard.components.source.checks import redact_url
from modelyard.components.store.models import ModelStore, open_store
from modelyard.components.store.settings import Store
from modelyard.components.store.storage import local_path, open_objects
from modelyard.pipelines.config.layers import PREFIX, is_service_link
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners import run_folder, select
from modelyard.pipelines.runners.local.runner import LocalRunner

MINIMUM_DISK = 2 * 2**30
HOST, SOCKS = "storage.googleapis.com", ("socksio", "socks")


class Check(NamedTuple):
    """The name of a check, whether it passed, and what it found; if it failed, also what to do."""

    name: str
    ok: bool
    found: str


def run_checks(store: Store, serving: Serving, name: str, environment: Environment) -> list[Check]:
    """Return all checks; files that they write are gone when they end."""
    checks = [python(), packages(), cpu(), disk(), models(store), port(serving)]
    checks += [proxy(), certificates(), passwords(), keras(), variables(), output()]
    if environment.on_cluster:
        checks.append(cluster(select.local_runner(name, environment), name))
    return checks


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
        folder = run_folder.home()
        run_folder.check_folder(folder)
    except ModelyardError as error:
        return Check("disk", False, str(error))
    free = shutil.disk_usage(run_folder.nearest_existing(folder)).free
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
        damages = [damage for name in names for damage in find_damages(store_models, name)]
    except ModelyardError as error:
        return Check("store", False, str(error))
    if path := local_path(store.url, "store.url"):
        try:
            with tempfile.TemporaryDirectory(
                dir=run_folder.nearest_existing(path), prefix=".modelyard-"
            ) as scratch:
                objects = open_objects(Store(url=scratch))
                objects.create("doctor/probe", b"1")
                objects.replace("doctor/probe", b"2", objects.read("doctor/probe")[1])
        except OSError as error:
            return Check("store", False, f"{path} cannot be written ({error.strerror}): change store.url")
        except ModelyardError as error:
            return Check("store", False, str(error).replace(scratch, str(path)))
    if damages:
        more = f" {len(damages) - 1} other files are damaged." if damages[1:] else ""
        return Check("store", False, damages[0] + more)
    return Check("store", True, f"{store_models.url}, {len(names)} models")


def find_damages(models: ModelStore, name: str) -> list[str]:
    """Return a message for each damaged record of a model, and if the champion's manifest is damaged."""
    damages = models.readable_history(name)[1]
    models.served_versions(name, damages)
    with suppress(DamagedError):  # one of them
        if champion := models.champion(name):
            try:
                models.manifest(name, champion.version)
            except (DamagedError, NotFoundError) as error:
                damages.append(str(error))
    return damages


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


def proxy() -> Check:
    """Check the proxies for buckets and data on the web."""
    schemes = "https://", "http://"
    try:
        found = {one: machine.proxy_for(f"{one}{HOST}", module) for one in schemes for module in SOCKS}
    except ModelyardError as error:
        return Check("proxy", False, str(error))
    shown = ", ".join(f"{redact_url(url)} for {scheme}" for scheme, url in found.items() if url)
    return Check("proxy", True, f"{shown}, never for this machine" if shown else "none")


def certificates() -> Check:
    """Check the certificate authorities that https:// trusts."""
    try:
        return Check("certificates", True, machine.certificates() or "the usual authorities")
    except ModelyardError as error:
        return Check("certificates", False, str(error))


def passwords() -> Check:
    """Check the file with the passwords of sources on the web."""
    from modelyard.components.source.web import read_netrc

    try:
        path, text = read_netrc()
    except ModelyardError as error:
        return Check("netrc", False, str(error))
    return Check("netrc", True, str(path) if text else "no passwords")


def keras() -> Check:
    """Check what Keras would train with."""
    try:
        machine.check_keras()
    except ModelyardError as error:
        return Check("keras", False, str(error))
    path, values = machine.keras_config()
    others = [f"{key} {value}" for key, value in values.items() if machine.KERAS_DEFAULTS.get(key) != value]
    unused = f"; {path} is not used ({', '.join(others)})" if others else ""
    return Check("keras", True, f"{os.environ.get('KERAS_BACKEND') or machine.KERAS_BACKENDS[0]}{unused}")


def variables() -> Check:
    """Check the environment variables of modelyard."""
    names = sorted(name for name in os.environ if name.startswith(PREFIX))
    links = [name for name in names if is_service_link(name, os.environ[name])]
    found = [name for name in names if name not in links]
    ignored = f"{len(links)} of Kubernetes' service links, which are ignored"
    return Check("variables", True, ", ".join([*found, *([ignored] if links else [])]) or "none")


def output() -> Check:
    """Check what stdout can show."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    replaced = "" if encoding.lower() in ("utf-8", "utf8") else ", in which other characters are replaced"
    return Check("output", True, f"{encoding}{replaced}")


def cluster(runner: LocalRunner, name: str) -> Check:
    """Check that the cluster answers, and that its pods may be listed."""
    try:
        runner.check()
    except ModelyardError as error:
        return Check("cluster", False, str(error))
    return Check("cluster", True, f"{name} answers")


def _problem(requirement: Requirement) -> str | None:
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return f"{requirement.name} is missing"
    if requirement.specifier.contains(found, prereleases=True):
        return None
    return f"{requirement.name} is {found} and must be {requirement.specifier}"
