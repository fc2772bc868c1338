"""A new step, added to a copy of the package, compiles."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from modelyard.pipelines.compile.code import ROOT
from modelyard.pipelines.compile.compiler import parse_package

FILES = {
    "__init__.py": '"""The step `audit`."""\n',
    "spec.py": '''"""The spec of the step `audit`."""

from modelyard.components.settings import Spec


class AuditSpec(Spec):
    """The model whose features are audited."""

    name: str
''',
    "component.py": '''"""The KFP component `audit`."""

from kfp import dsl


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def audit(features: dsl.Input[dsl.Dataset], spec: str, findings: dsl.Output[dsl.Artifact]) -> None:
    """Audit the features."""
    from modelyard.components.audit.auditor import audit

    audit(features.path, spec, findings.path)
''',
    "auditor.py": '"""The audit of features."""\n\nfrom modelyard.components import shards\n',
}
TRAIN = '    Step(\n        "train",'
ROW = (TRAIN, f'    Step("audit", AuditSpec, image="preprocess", cached=True),\n{TRAIN}')
SPEC = ("from modelyard.components.deploy.spec", "from modelyard.components.audit.spec import AuditSpec\n")
TRAIN_TASK = "                train_task = set_options("
AUDIT_TASK = 'set_options(audit(features=preprocess_task.outputs["features"], spec=audit_spec))'
FLOW = (TRAIN_TASK, f"{' ' * 16}{AUDIT_TASK}\n\n{TRAIN_TASK}")
PROGRAM = """
import json, sys
from pathlib import Path
from modelyard.pipelines.compile.code import find_packages
from modelyard.pipelines.compile.compiler import compile_to
from modelyard.pipelines.config.config import load
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.steps import IMAGES
images = {image: f"a/{image}" for image in IMAGES}
keys = [f"environment.images={json.dumps(images)}", "environment.steps.audit.cpu=2"]
environment = load_environment("kind", keys, {})
compile_to(load(None, (), {}, environment.model_store()), Path("pipeline.yaml"), environment)
print(json.dumps(find_packages("preprocess")))
"""


def test_a_new_step_is_a_folder_a_row_and_a_call_in_the_pipeline(tmp_path: Path) -> None:
    package = Path(
        shutil.copytree(ROOT, tmp_path / "modelyard", ignore=shutil.ignore_patterns("__pycache__"))
    )
    (folder := package / "components" / "audit").mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    edit(package / "pipelines/steps.py", ROW, (SPEC[0], SPEC[1] + SPEC[0]))
    component = "from modelyard.components.deploy.component"
    edit(
        package / "pipelines/train_to_serve.py",
        FLOW,
        ("        train_spec: str,", "        audit_spec: str,\n        train_spec: str,"),
        (component, f"from modelyard.components.audit.component import audit\n{component}"),
    )

    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert {"audit", "preprocess", "shards"} <= set(json.loads(result.stdout))
    spec, platform = parse_package((tmp_path / "pipeline.yaml").read_bytes())
    container = spec["deploymentSpec"]["executors"]["exec-audit"]["container"]
    assert container["image"] == "a/preprocess"
    assert container["resources"]["resourceCpuRequest"] == "2"
    assert json.loads(spec["root"]["inputDefinitions"]["parameters"]["audit_spec"]["defaultValue"]) == {
        "name": "digits"
    }
    assert "exec-audit" in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def edit(path: Path, *changes: tuple[str, str]) -> None:
    text = path.read_text()
    for before, after in changes:
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    path.write_text(text)
