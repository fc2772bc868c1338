"""The fingerprint of a step's code on this machine; on a cluster the digest of its image says as much.

It covers what the step's component imports, and what that imports, also inside functions: the modules of
modelyard with the data files beside them, and the versions of the distributions. What is imported by name,
because a setting selects it, is in no import statement; the step's spec names it (`Spec.modules`).
"""

import hashlib
import json
import re
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from modelyard.pipelines.steps import STEPS

PACKAGE = "modelyard"
ROOT = Path(__file__).parents[2]
IGNORED_KEYS = {
    "modelyard.components.errors": "what a failure is called",
    "modelyard.components.events": "what a run shows while it goes on",
    "modelyard.components.interface": "whether the image of a step fits the pipeline",
    "modelyard.components.lifeline": "when a step ends with its parent",
    "modelyard.components.machine": "how the network is reached",
    "modelyard.components.records": "what a run writes about itself",
    "modelyard.components.step": "how a failure is recorded",
    "modelyard.components.store": "moves files whose SHA-256 is compared",
}
"""Modules and packages that change no result, and why; what only they import does not count either."""
REPORT = "modelyard.components.report"
"""What evaluate shows people: another report is not another version."""
DISTRIBUTIONS = {
    "PIL": "pillow",
    "google": "google-cloud-storage",
    "simdjson": "pysimdjson",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
"""Distributions whose name is not that of the module."""
# Parsing would take longer than all else before the first step; a test compares this with `ast`.
_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(?P<package>[\w.]+)[ \t]+)?import[ \t]+(?P<names>\([^)]*\)|[^\n]+)", re.MULTILINE
)
_COMMENT = re.compile(r"#.*")
_TEXT = re.compile(r'""".*?"""', re.DOTALL)  # a docstring may show how to import


def code_sha256(
    step: str, selected: Collection[str] = (), without: Collection[str] = (), root: Path = ROOT
) -> str:
    """Return the fingerprint of a step's code.

    Args:
        step: its name.
        selected: the modules that its settings select, `modules` of its spec.
        without: modules and packages that do not count, beside those without effect.
        root: the folder of the package modelyard.
    """
    modules, distributions = find_imported_modules(
        (STEPS[step].component, *selected), (*IGNORED_KEYS, *without), root
    )
    files = {path.relative_to(root).as_posix(): _contents(path)[0] for path in _files(modules.values(), root)}
    versions = {name: _version(name) for name in (*distributions, *STEPS[step].distributions)}
    return hashlib.sha256(json.dumps([files, versions], sort_keys=True).encode()).hexdigest()


def find_imported_modules(
    modules: Iterable[str], without: Collection[str] = (), root: Path = ROOT
) -> tuple[dict[str, Path], set[str]]:
    """Return the modules of modelyard that some modules import, with their files, and the distributions.

    Args:
        modules: the modules to begin with, which are part of the result.
        without: modules and packages that are left out, with what only they import.
        root: the folder of the package modelyard.
    """
    known, found = _package(root), dict[str, Path]()
    distributions: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in found or any(name == one or name.startswith(f"{one}.") for one in without):
            continue
        if name.partition(".")[0] != PACKAGE:
            if (top := name.partition(".")[0]) not in sys.stdlib_module_names:
                distributions.add(DISTRIBUTIONS.get(top, top))
        elif path := known.get(name):  # else it is the name of something in a module
            found[name] = path
            waiting.extend(_contents(path)[1])
            waiting.append(name.rpartition(".")[0] or name)
    return found, distributions


def find_packages(image: str, root: Path = ROOT) -> tuple[str, ...]:
    """Return what an image holds of components/: the folders of its steps, and all that these import.

    Args:
        image: its name.
        root: the folder of the package modelyard.
    """
    own = {step.name for step in STEPS.values() if image in (step.image, *step.accelerated.values())}
    found, new = {"__init__"}, own or {image}
    while new - found:
        found |= new
        modules, _ = find_imported_modules(
            (name for part in found for name in _modules(root / "components" / part, root)), root=root
        )
        new = {name.split(".")[2] for name in modules if name.count(".") > 1}
    return tuple(sorted(found))


def find_imports(source: str) -> frozenset[str]:
    """Return the names in the import statements of a module's source; some are of things in a module."""
    return frozenset(_imports(source))


def _imports(source: str) -> Iterator[str]:
    for found in _IMPORT.finditer(_TEXT.sub("", source)):
        names = _COMMENT.sub("", found["names"]).strip("() \t\n").split(",")
        for name in (one.split()[0] for one in names if one.strip()):
            yield f"{found['package']}.{name}" if found["package"] else name
        if found["package"]:
            yield found["package"]


def _modules(part: Path, root: Path) -> Iterator[str]:
    """Yield the modules of a folder, or of a file without its suffix."""
    for path in part.rglob("*.py") if part.is_dir() else (part.with_suffix(".py"),):
        yield _name(path, root)


def _name(path: Path, root: Path) -> str:
    return ".".join((PACKAGE, *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__")


@cache
def _package(root: Path) -> dict[str, Path]:
    """Return the files of the modules that a step can import."""
    return {_name(path, root): path for path in (root / "__init__.py", *(root / "components").rglob("*.py"))}


def _files(modules: Iterable[Path], root: Path) -> set[Path]:
    """Return the files of modules, and the data files of their packages."""
    files = set(modules)
    for folder in {path.parent for path in files} - {root, root / "components"}:
        files |= {path for path in folder.rglob("*") if _is_data(path)}
    return files


def _is_data(path: Path) -> bool:
    hidden = path.name.startswith(".") or "__pycache__" in path.parts
    return path.suffix != ".py" and not hidden and path.is_file()


def _contents(path: Path) -> tuple[str, frozenset[str]]:
    """Return the SHA-256 of a file, and of a module what it imports; read once unless the file changes."""
    seen = path.stat()
    return _read(path, seen.st_mtime_ns, seen.st_size)


@cache
def _read(path: Path, *_seen: int) -> tuple[str, frozenset[str]]:
    content = path.read_bytes()
    names = find_imports(content.decode()) if path.suffix == ".py" else frozenset[str]()
    return hashlib.sha256(content).hexdigest(), names


@cache
def _version(distribution: str) -> str:
    with suppress(PackageNotFoundError):  # not for this platform
        return version(distribution)
    return ""
