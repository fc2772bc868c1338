"""The fingerprint of a step's code covers exactly the modules that its process imports."""

import shutil
from pathlib import Path
from typing import Any

from modelyard.pipelines.compile.code import IGNORED_MODULES, ROOT, code_sha256
from modelyard.pipelines.compile.compiler import create_specs
from modelyard.pipelines.config.config import load
from modelyard.pipelines.steps import STEPS

CACHED = [step.name for step in STEPS.values() if step.cached]


def test_an_edited_file_invalidates_the_steps_that_import_it(
    digits: Any,  # noqa: ARG001 - writes the modules
    modules: Path,
    tmp_path: Path,
) -> None:
    imported = {step: set((modules / step).read_text().split()) for step in CACHED}
    root = Path(shutil.copytree(ROOT, tmp_path / "modelyard", ignore=shutil.ignore_patterns("__pycache__")))
    specs_by_step = create_specs(load(environ={}))

    def fingerprints() -> dict[str, str]:
        return {step: code_sha256(step, specs_by_step[step].modules(), root=root) for step in CACHED}

    before, different = fingerprints(), {}
    for path in sorted(root.glob("components/**/*.py")):
        source = path.read_bytes()
        path.write_bytes(source + b"\n")
        after = fingerprints()
        path.write_bytes(source)
        module = ".".join(("modelyard", *path.relative_to(root).with_suffix("").parts)).removesuffix(
            ".__init__"
        )
        # KFP executes a copy of the source of a component
        expected = {step for step in CACHED if module in {*imported[step], STEPS[step].component}}
        expected = set() if any(f"{module}.".startswith(f"{key}.") for key in IGNORED_MODULES) else expected
        if expected != (changed := {step for step in CACHED if before[step] != after[step]}):
            different[module] = (expected, changed)
    assert different == {}
    assert not [name for step in CACHED for name in imported[step] if name.startswith("modelyard.pipelines")]
    for path in (path for path in root.glob("pipelines/**/*") if path.is_file()):
        path.write_bytes(path.read_bytes() + b"\n")
    assert fingerprints() == before, "no step imports a module of pipelines/"
