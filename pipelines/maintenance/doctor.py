"""`modelyard doctor`: check that this machine can run the pipeline and serve.

A check is a function that returns its result, or raises a ModelyardError with the remedy, or
a CheckWarning.
"""

import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from modelyard.components import machine
from modelyard.components.errors import (
    DamagedError,
    MachineError,
    ModelyardError,
    NotFoundError,
    StoreError,
    pluralize,
)
from modelyard.components.serve.settings import Serving
from modelyard.components.source.checks import redact_url
from modelyard.components.source.web import read_netrc
from modelyard.components.store.models import ModelStore, open_store
from modelyard.components.store.settings import Store
from modelyard.components.store.storage import local_path, open_objects
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.config.layers import PREFIX, is_service_link
from modelyard.pipelines.config.validation import did_you_mean, iterate_keys, section_class
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners import run_folder, select

MIN_DISK = 2 * 2**30  # bytes
HOST, SOCKS_MODULES = "storage.googleapis.com", ("socksio", "socks")
PROXY_TIMEOUT, SOCKS_PORT = 2.0, 1080
HOME = f"{PREFIX}HOME"
INTERNAL_VARIABLES = (
    *("ACCELERATOR", "ACCELERATOR_OPTIONAL", "EVENTS", "IMAGE", "INTERFACE", "LIFELINE", "PODS", "RUN"),
    *("RUN_ID", "TERMINATION_LOG", "WEBHOOK"),
)
"""Names after PREFIX of the variables that modelyard and its pipelines set."""


class CheckWarning(Exception):  # noqa: N818 - not an error
    """A check passed, but the machine has a probable misconfiguration."""


class CheckResult(NamedTuple):
    """The name of a check, whether it passed, and its message, which has the remedy if it failed.

    `warning` tells whether a passed check indicates a probable misconfiguration.
    """

    name: str
    ok: bool
    message: str
    warning: bool = False


def run_checks(store: Store, serving: Serving, name: str, environment: Environment) -> list[CheckResult]:
    """Return the results of all checks of this machine and of the environment `name`; they leave no files."""
    checks: dict[str, Callable[[], str]] = {
        "python": check_python,
        "packages": check_packages,
        "cpu": check_cpu,
        "disk": check_disk,
        "store": lambda: check_store(store),
        "port": lambda: check_port(serving),
        "proxy": check_proxies,
        "certificates": lambda: machine.find_certificates() or "the default authorities",
        "netrc": find_netrc,
        "keras": check_keras,
        "variables": check_variables,
        "output": find_encoding,
    }
    if environment.on_cluster:
        checks["cluster"] = lambda: check_cluster(name, environment)
    return [_run_check(*check) for check in checks.items()]


def _run_check(name: str, check: Callable[[], str]) -> CheckResult:
    try:
        return CheckResult(name, True, check())
    except CheckWarning as warning:
        return CheckResult(name, True, str(warning), warning=True)
    except ModelyardError as error:
        return CheckResult(name, False, str(error))


def check_python() -> str:
    """Check the version of Python."""
    required, installed = metadata("modelyard")["Requires-Python"], platform.python_version()
    if not SpecifierSet(required).contains(installed, prereleases=True):
        raise MachineError(
            f"The version of Python is {installed}, but modelyard requires {required}. Use another version."
        )
    return installed


def check_packages() -> str:
    """Check that the required packages are installed in supported versions."""
    requirements = [Requirement(line) for line in requires("modelyard") or []]
    requirements = [
        requirement
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    ]
    if errors := [error for requirement in requirements if (error := _check_package(requirement))]:
        raise MachineError(f"{'; '.join(errors)}. Install modelyard again.")
    versions = ", ".join(f"{name} {version(name)}" for name in ("kfp", "keras", "tensorflow", "onnxruntime"))
    return f"{len(requirements)} packages, including {versions}"


def _check_package(requirement: Requirement) -> str | None:
    try:
        installed = version(requirement.name)
    except PackageNotFoundError:
        return f"{requirement.name} is missing"
    if requirement.specifier.contains(installed, prereleases=True):
        return None
    return f"{requirement.name} is {installed} and must be {requirement.specifier}"


def check_cpu() -> str:
    """Check for AVX; without it TensorFlow crashes with `Illegal instruction`."""
    info = Path("/proc/cpuinfo")
    if platform.machine() not in ("x86_64", "AMD64") or not info.is_file():
        return f"{platform.machine()}, {pluralize(os.cpu_count() or 1, 'core')}"
    flags = next((line for line in info.read_text().splitlines() if line.startswith("flags")), "").split()
    extensions = [flag for flag in ("avx", "avx2", "fma", "avx512f", "amx_bf16") if flag in flags]
    if "avx" not in extensions:
        raise MachineError("The CPU has no AVX, which TensorFlow needs. Use another machine.")
    return f"{pluralize(os.cpu_count() or 1, 'core')} with {', '.join(extensions)}"


def check_disk() -> str:
    """Check that the folder of runs and their cache can be used, and the free space."""
    folder = run_folder.home()
    run_folder.check_folder(folder)
    free = shutil.disk_usage(run_folder.find_nearest_existing(folder)).free
    message = f"{free / 2**30:.1f} GiB free for {folder}"
    if free < MIN_DISK:
        raise MachineError(f"{message}; a run needs about 2 GiB. Set MODELYARD_HOME to another disk.")
    return message


def check_store(store: Store) -> str:
    """Check that the model store can be read and is not damaged and, if it is a folder, can be written."""
    models = open_store(store)
    names = models.names()
    if path := local_path(store.url, "store.url"):
        _check_writable(path)
    if errors := [error for name in names for error in find_store_errors(models, name)]:
        more = f" Number of other damaged files: {len(errors) - 1}." if errors[1:] else ""
        raise DamagedError(errors[0] + more)
    return f"{models.url}, {pluralize(len(names), 'model')}"


def _check_writable(path: Path) -> None:
    folder = run_folder.find_nearest_existing(path)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".modelyard-") as scratch:
            try:
                objects = open_objects(Store(url=scratch))
                objects.create("doctor/probe", b"1")
                objects.replace("doctor/probe", b"2", objects.read("doctor/probe")[1])
            except ModelyardError as error:
                raise StoreError(str(error).replace(scratch, str(path))) from error
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}. Change store.url.") from error


def find_store_errors(models: ModelStore, name: str) -> list[str]:
    """Return a message for each damaged record of a model, and for a damaged manifest of the champion."""
    errors = models.readable_history(name)[1]
    models.served_versions(name, errors)
    with suppress(DamagedError):  # `errors` has it
        if champion := models.champion(name):
            try:
                models.manifest(name, champion.version)
            except (DamagedError, NotFoundError) as error:
                errors.append(str(error))
    return errors


def check_port(serving: Serving) -> str:
    """Check that the server's port is free."""
    address = f"{serving.host}:{serving.port}"
    with socket.socket(socket.AF_INET6 if ":" in serving.host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((serving.host, serving.port))
            listener.listen(1)
        except OSError as error:
            reason = error.strerror or error
            raise MachineError(
                f"{address} is not free: {reason}. Stop the process that uses it, or serve with another "
                "--port."
            ) from error
    return f"{address} is free"


def check_proxies() -> str:
    """Check that the proxies for buckets and for data on the web accept connections; return them."""
    proxies: dict[str, str] = {}
    for scheme in ("https://", "http://"):
        for module in SOCKS_MODULES:  # raises if the proxy needs a module that is not installed
            if proxy := machine.find_proxy(f"{scheme}{HOST}", module):
                proxies[scheme] = proxy
    for url in dict.fromkeys(proxies.values()):
        parts = urlsplit(url)
        address = parts.hostname, parts.port or machine.PORTS.get(parts.scheme, SOCKS_PORT)
        try:
            socket.create_connection(address, PROXY_TIMEOUT).close()
        except OSError as error:
            raise MachineError(
                f"The proxy {redact_url(url)} accepts no connection: {error.strerror or error}. Correct or "
                "unset HTTP_PROXY, HTTPS_PROXY and ALL_PROXY."
            ) from error
    by_scheme = ", ".join(f"{redact_url(url)} for {scheme}" for scheme, url in proxies.items())
    return f"{by_scheme}, not for this machine" if by_scheme else "none"


def find_netrc() -> str:
    """Return the file with the passwords of data on the web."""
    path, text = read_netrc()
    return str(path) if text else "no passwords"


def check_keras() -> str:
    """Check the backend of Keras, and return it with the ignored settings of keras.json."""
    machine.check_keras()
    path, values = machine.read_keras_config()
    settings = [f"{key} {value}" for key, value in values.items() if machine.KERAS_DEFAULTS.get(key) != value]
    ignored = f"; {path} is ignored ({', '.join(settings)})" if settings else ""
    return f"uses {os.environ.get('KERAS_BACKEND') or machine.KERAS_BACKENDS[0]}{ignored}"


def check_variables() -> str:
    """Return the environment variables of modelyard; warn about those that it does not know."""
    names = sorted(name for name in os.environ if name.startswith(PREFIX))
    links = [name for name in names if is_service_link(name, os.environ[name])]
    fields = [*iterate_keys(Config), *iterate_keys(Environment, ("environment",))]
    keys = {PREFIX + "__".join(map(str, path)).upper(): section_class(field) for path, field in fields}
    other_variables = [f"{PREFIX}{name}" for name in ("ENVIRONMENT", *INTERNAL_VARIABLES)]
    known = {*keys, HOME, *other_variables, *links}
    # a key that is not a section may have keys too, such as gate.minimum
    prefixes = tuple(f"{key}__" for key, section in keys.items() if not section)
    unknown = [name for name in names if name not in known and not name.startswith(prefixes)]
    variables = [name for name in names if name not in (*unknown, *links)]
    variables += [f"{pluralize(len(links), 'service link')} of Kubernetes (ignored)"] if links else []
    variables += [f"{name} is unknown and ignored{did_you_mean(name, [*keys, HOME])}" for name in unknown]
    if unknown:
        raise CheckWarning(", ".join(variables))
    return ", ".join(variables) or f"no variable begins with {PREFIX}"


def find_encoding() -> str:
    """Return the encoding of stdout."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    if encoding.lower() in ("utf-8", "utf8"):
        return encoding
    return f"{encoding}; characters outside of it are replaced"


def check_cluster(name: str, environment: Environment) -> str:
    """Check that the cluster responds, and that its pods may be listed."""
    select.create_local_runner(name, environment).check()
    return f"{name} responds"
