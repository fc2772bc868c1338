"""The hash of a step's code. tests/integration/flow/test_code.py compares it with the imported modules."""

import ast
import re
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from modelyard.pipelines.compile import code
from modelyard.pipelines.compile.code import (
    IGNORED_MODULES,
    ROOT,
    code_sha256,
    find_imported_modules,
    find_imports,
)
from modelyard.pipelines.steps import SERVER_IMAGE, STEPS

COMPONENTS = re.compile(r"modelyard\.components\.")
PARTS = [ROOT / part for part in ("components", "pipelines")]  # links, which rglob does not follow
SOURCES = sorted(path.relative_to(ROOT) for part in PARTS for path in part.rglob("*.py"))


def parse_imports(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module
            assert not node.level
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_imports_are_those_that_python_parses() -> None:
    for path in SOURCES:
        source = (ROOT / path).read_text()
        assert find_imports(source) == set(parse_imports(source)), path


def test_neither_steps_nor_shared_modules_import_other_steps() -> None:
    independent = {*STEPS, SERVER_IMAGE}
    for path in SOURCES:
        if path.parts[0] == "components":
            imported = {
                name.split(".")[2]
                for name in find_imports((ROOT / path).read_text())
                if COMPONENTS.match(name)
            }
            assert imported & independent <= {path.parts[1]}, path


def test_imported_distributions_are_requirements_of_modelyard() -> None:
    """Otherwise the hash would not include their versions."""
    required = {canonicalize_name(Requirement(line).name) for line in requires("modelyard") or ()}
    for step in filter(lambda step: step.cached, STEPS.values()):
        _, distributions = find_imported_modules((step.component,), IGNORED_MODULES)
        assert {canonicalize_name(name) for name in distributions} <= required


@pytest.fixture
def find_changed_steps(tmp_path: Path) -> Callable[[str], set[str]]:
    """Return a function that changes a file in a copy of the package and returns the changed steps."""
    root = shutil.copytree(ROOT / "components", tmp_path / "components").parent
    (root / "__init__.py").touch()
    before = {step: code_sha256(step, root=root) for step in STEPS}

    def change(name: str) -> set[str]:
        with (root / name).open("a") as file:
            file.write("\n")
        return {step for step in STEPS if code_sha256(step, root=root) != before[step]}

    return change


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("components/evaluate/gate.py", {"evaluate"}),
        ("components/report/report.html", {"evaluate"}),
        ("components/train/trainer.py", {"train"}),
        ("components/train/probe.py", set()),
        ("components/shards.py", {"ingest", "preprocess", "train", "evaluate"}),
        ("components/artifacts.py", set(STEPS)),
        ("components/serve/server.py", set()),
        *((f"components/{name.rpartition('.')[2]}.py", set()) for name in IGNORED_MODULES),
    ],
)
def test_a_changed_file_changes_the_steps_that_use_it(
    name: str, steps: set[str], find_changed_steps: Callable[[str], set[str]]
) -> None:
    assert (
        find_changed_steps(name if (ROOT / name).exists() else f"{name.removesuffix('.py')}/__init__.py")
        == steps
    )


def test_a_changed_version_of_a_distribution_changes_the_steps_that_use_it(monkeypatch) -> None:
    before = {step: code_sha256(step) for step in STEPS}
    monkeypatch.setattr(
        code, "_find_version", lambda name: "next" if name == "onnxruntime" else code.version(name)
    )
    assert {step for step in STEPS if code_sha256(step) != before[step]} == {"train", "evaluate"}
