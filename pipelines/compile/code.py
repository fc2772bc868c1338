"""Computes the fingerprint of a step's code on this machine. On a cluster, the image digest replaces it.

The fingerprint covers the modules of modelyard that the component imports, directly or indirectly, including
imports in functions; the data files of their packages; and the versions of imported distributions.
`Spec.modules` names the modules that a setting selects, which no import statement names.
"""

import hashlib
import json
import re
import sys
from collections.abc import Collection, Iterable
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from modelyard.pipelines.steps import STEPS

PACKAGE = "modelyard"
ROOT = Path(__file__).parents[2]
IGNORED_MODULES = {
    "modelyard.components.errors": "classes of failures",
    "modelyard.components.events": "progress of a run",
    "modelyard.components.interface": "checks that image and pipeline match",
    "modelyard.components.lifeline": "ends a step with its parent",
    "modelyard.components.machine": "network settings",
    "modelyard.components.records": "records of runs",
    "modelyard.components.step": "records of failures",
    "modelyard.components.store": "moves files and compares their SHA-256",
}
"""Modules and packages that do not change a result, with their purpose; modules that only they import are
ignored too."""
REPORT = "modelyard.components.report"
"""The report of evaluate: a change of the report does not make a new version."""
DISTRIBUTIONS = {
    "PIL": "pillow",
    "google": "google-cloud-storage",
    "simdjson": "pysimdjson",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
"""Distributions whose name differs from that of their module."""
# Parsing with `ast` would take most of the time before the first step; a test compares the results.
_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(?P<package>[\w.]+)[ \t]+)?import[ \t]+(?P<names>\([^)]*\)|[^\n]+)", re.MULTILINE
)
_COMMENT = re.compile(r"#.*")
_DOCSTRING = re.compile(r'""".*?"""', re.DOTALL)  # a docstring may show how to import


def code_sha256(
    step: str, modules: Collection[str] = (), ignored_modules: Collection[str] = (), root: Path = ROOT
) -> str:
    """Return the fingerprint of a step's code.

    `modules` are those that its settings select (`Spec.modules`). `ignored_modules` are modules and packages
    to ignore in addition to IGNORED_MODULES. `root` is the folder of the package modelyard.
    """
    modules_by_name, distributions = find_imported_modules(
        (STEPS[step].component, *modules), (*IGNORED_MODULES, *ignored_modules), root
    )
    files = {
        path.relative_to(root).as_posix(): _read_file(path).sha256
        for path in _find_files(modules_by_name.values(), root)
    }
    versions = {name: _find_version(name) for name in distributions}
    return hashlib.sha256(json.dumps([files, versions], sort_keys=True).encode()).hexdigest()


def find_imported_modules(
    modules: Iterable[str], ignored_modules: Collection[str] = (), root: Path = ROOT
) -> tuple[dict[str, Path], set[str]]:
    """Return the files of modules and of the modules of modelyard that they import, and the distributions.

    Files are by module name. `ignored_modules` are modules and packages to ignore, with the modules that only
    they import.
    """
    package = _package_files(root)
    imported_modules: dict[str, Path] = {}
    distributions: set[str] = set()
    queue = list(modules)
    while queue:
        name = queue.pop()
        if name in imported_modules or any(f"{name}.".startswith(f"{module}.") for module in ignored_modules):
            continue
        top = name.partition(".")[0]
        if top != PACKAGE:
            if top not in sys.stdlib_module_names:
                distributions.add(DISTRIBUTIONS.get(top, top))
        elif path := package.get(name):  # otherwise the name of an object in a module
            imported_modules[name] = path
            queue.extend(_read_file(path).imports)
            queue.append(name.rpartition(".")[0] or name)
    return imported_modules, distributions


def find_packages(image: str, root: Path = ROOT) -> tuple[str, ...]:
    """Return the packages and modules below components/ in an image: those of its steps and their imports."""
    steps = {step.name for step in STEPS.values() if image in (step.image, *step.accelerator_images.values())}
    packages, added_packages = {"__init__"}, steps or {image}
    while added_packages - packages:
        packages |= added_packages
        names = [
            name
            for name in _package_files(root)
            if name.removeprefix(f"{PACKAGE}.components.").partition(".")[0] in packages
        ]
        modules, _ = find_imported_modules(names, root=root)
        added_packages = {name.split(".")[2] for name in modules if name.count(".") > 1}
    return tuple(sorted(packages))


def find_imports(source: str) -> frozenset[str]:
    """Return the names in the import statements of a module: modules, and objects in modules."""
    imports = set[str]()
    for statement in _IMPORT.finditer(_DOCSTRING.sub("", source)):
        package = statement["package"]
        items = _COMMENT.sub("", statement["names"]).strip("() \t\n").split(",")
        names = [item.split()[0] for item in items if item.strip()]
        imports |= {package, *(f"{package}.{name}" for name in names)} if package else set(names)
    return frozenset(imports)


@cache
def _package_files(root: Path) -> dict[str, Path]:
    """Return the files of the modules that a step can import."""
    paths = (root / "__init__.py", *(root / "components").rglob("*.py"))
    names = (".".join((PACKAGE, *path.relative_to(root).with_suffix("").parts)) for path in paths)
    return {name.removesuffix(".__init__"): path for name, path in zip(names, paths, strict=True)}


def _find_files(modules: Iterable[Path], root: Path) -> set[Path]:
    """Return the files of modules, and the data files of their packages."""
    files = set(modules)
    for folder in {path.parent for path in files} - {root, root / "components"}:
        for path in folder.rglob("*"):
            hidden = path.name.startswith(".") or "__pycache__" in path.parts
            if path.suffix != ".py" and not hidden and path.is_file():
                files.add(path)
    return files


class _File(NamedTuple):
    sha256: str
    imports: frozenset[str]


def _read_file(path: Path) -> _File:
    """Return the SHA-256 and the imports of a file; it is read again only if it changes."""
    status = path.stat()
    return _read_cached(path, status.st_mtime_ns, status.st_size)


@cache
def _read_cached(path: Path, *_status: int) -> _File:
    content = path.read_bytes()
    imports = find_imports(content.decode()) if path.suffix == ".py" else frozenset[str]()
    return _File(hashlib.sha256(content).hexdigest(), imports)


@cache
def _find_version(distribution: str) -> str:
    with suppress(PackageNotFoundError):  # not installed on this platform
        return version(distribution)
    return ""
