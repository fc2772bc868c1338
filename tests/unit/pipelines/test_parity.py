"""The compiled pipeline has no construct that kfp.local and the backend treat differently.

Each tested construct failed in one of them.
"""

import ast
import builtins
import re
import symtable
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from modelyard.pipelines.compile.compiler import LOADER, compile_package
from modelyard.pipelines.compile.preflight import ARGUMENT_BYTES
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.steps import ACCELERATED_IMAGES, IMAGES, STEPS

Json = dict[str, Any]
CHANNEL = re.compile(r"inputs\.parameter_values\['([^']+)'\]")
# imported by the wrapper around a component's source: `from kfp.dsl import *; from typing import *`
IMPORTED = {"kfp", "dsl", "Artifact", "Dataset", "Model", "Metrics", "ClassificationMetrics", "HTML"}
IMPORTED |= {"Markdown", "Input", "Output", "InputPath", "OutputPath", "PipelineTaskFinalStatus"}
IMPORTED |= {"List", "Dict", "Optional", "NamedTuple", "Any", "Union", "Tuple"}


class Compiled:
    """The compiled pipeline: its groups (`root` and others), tasks by name, and containers by step."""

    def __init__(self, package: bytes) -> None:
        self.text = package.decode()
        self.spec, *platform = yaml.load_all(package, LOADER)
        self.platform: Json = platform[0] if platform else {}
        components = {"root": self.spec["root"], **self.spec["components"]}
        self.groups: Json = {
            name: component["dag"] for name, component in components.items() if "dag" in component
        }
        self.tasks: Json = {name: task for dag in self.groups.values() for name, task in dag["tasks"].items()}
        executors = self.spec["deploymentSpec"]["executors"]
        # an importer has no container; neither the cache nor kfp.local sees changes at its URI
        self.containers: Json = {
            name.removeprefix("exec-"): executor["container"] for name, executor in executors.items()
        }

    def sources(self) -> Iterator[tuple[str, str]]:
        """Yield each step's name and the Python source in its command."""
        for step, container in self.containers.items():
            parts = [*container["command"], *container["args"]]
            assert any("kfp.dsl.executor_main" in part for part in parts), step
            yield step, next(part for part in parts if "import kfp" in part and "def " in part)


@pytest.fixture(scope="module", params=["local", "kind", "gke"])
def compiled(request: pytest.FixtureRequest) -> Compiled:
    images = "{" + ", ".join(f"{image}: a/{image}" for image in (*IMAGES, *ACCELERATED_IMAGES)) + "}"
    locations = ["store=gs://a/models", "pipeline_root=gs://a/runs"] if request.param == "gke" else []
    overrides = [f"environment.{setting}" for setting in (f"images={images}", *locations)]
    return Compiled(compile_package(load_environment(request.param, overrides, environ={})))


def test_steps_are_lightweight_components_without_pip_install(compiled):
    assert {step for step, _ in compiled.sources()} == set(STEPS)
    assert "pip install" not in compiled.text


def test_steps_have_a_spec_and_values_of_the_run_as_parameters(compiled):
    parameters = set(compiled.spec["root"]["inputDefinitions"]["parameters"])
    assert parameters == {step.parameter for step in STEPS.values()} | {"skip_unchanged", "force_after"}
    at_run_time = {"skip_unchanged", "force_after", "fingerprint", "identity", "run", "status"}
    for step in STEPS:
        parts = compiled.spec["components"][f"comp-{step}"]
        assert parts["inputDefinitions"]["parameters"].keys() <= {"spec"} | at_run_time
    deploy = compiled.spec["components"]["comp-deploy"]
    kinds = (deploy["inputDefinitions"]["artifacts"], deploy["inputDefinitions"]["parameters"])
    assert sum(map(len, kinds)) + len(deploy["outputDefinitions"]["artifacts"]) == 6


def test_names_fit_into_a_workflow(compiled):
    for name in (compiled.spec["pipelineInfo"]["name"], *compiled.tasks):
        assert re.fullmatch(r"[a-z0-9][a-z0-9-]{0,38}[a-z0-9]", name), name


def test_conditions_are_on_unnamed_outputs_and_without_quotes(compiled):
    conditions = []
    for dag in compiled.groups.values():
        for task in dag["tasks"].values():
            if condition := task.get("triggerPolicy", {}).get("condition"):
                conditions.append(condition)
                for channel in CHANNEL.findall(condition):
                    source = task["inputs"]["parameters"][channel]["taskOutputParameter"]
                    assert source["outputParameterKey"] == "Output"
                assert "'" not in re.sub(r"'[^']*'", "", CHANNEL.sub("", condition))
    assert len(conditions) == 2


def test_the_pipeline_has_no_loop_choice_or_output(compiled):
    assert "parameterIterator" not in compiled.text
    assert "artifactIterator" not in compiled.text
    for name, dag in compiled.groups.items():
        artifacts = dag.get("outputs", {}).get("artifacts", {})
        assert all(len(output["artifactSelectors"]) == 1 for output in artifacts.values())
        assert name != "root" or "outputs" not in dag


def test_explain_is_the_exit_task_of_the_pipeline(compiled):
    exits = [name for name, task in compiled.tasks.items() if "strategy" in task.get("triggerPolicy", {})]
    assert exits == ["explain"]
    root = compiled.groups["root"]["tasks"]
    (handled,) = root["explain"]["dependentTasks"]
    assert root[handled]["componentRef"]["name"].startswith("comp-exit-handler")
    assert not [name for name, task in compiled.tasks.items() if "explain" in task.get("dependentTasks", ())]


def test_only_steps_without_side_effects_are_cached(compiled):
    cached = {
        name for name, task in compiled.tasks.items() if task.get("cachingOptions", {}).get("enableCache")
    }
    assert cached & set(STEPS) == {"ingest", "preprocess", "train", "evaluate"}


def test_the_cache_key_has_no_times(compiled):
    assert "pipeline_job_create_time_utc" not in compiled.text
    assert "pipeline_job_schedule_time_utc" not in compiled.text
    assert "__KFP_EMBEDDED_ARCHIVE" not in compiled.text  # its archive has times
    kubernetes = compiled.platform.get("platforms", {}).get("kubernetes", {})
    assert "workspace" not in kubernetes.get("pipelineConfig", {})  # the name of its volume is in the key


def test_parameters_are_text_where_json_would_change(compiled):
    for name, component in compiled.spec["components"].items():
        for key, parameter in component.get("inputDefinitions", {}).get("parameters", {}).items():
            assert parameter["parameterType"] not in ("LIST", "STRUCT"), f"{name}.{key}"


def test_artifacts_remain_under_the_pipeline_root(compiled):
    for step, source in compiled.sources():
        stores = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)]
        assert not [node for node in stores if node.attr == "uri" and isinstance(node.ctx, ast.Store)], step


def test_component_sources_use_only_names_defined_in_the_pod(compiled):
    for step, source in compiled.sources():
        top = symtable.symtable(source, step, "exec")
        known = set(top.get_identifiers()) | set(dir(builtins)) | IMPORTED
        assert global_names(top) <= known, step


def global_names(table: symtable.SymbolTable) -> set[str]:
    """Return the global names that functions use."""
    names = {
        symbol.get_name()
        for symbol in table.get_symbols()
        if table.get_type() == "function" and symbol.is_global() and symbol.is_referenced()
    }
    return names.union(*map(global_names, table.get_children()))


def test_arguments_are_below_the_limit_of_linux(compiled):
    for container in compiled.containers.values():
        assert (
            max(len(part.encode()) for part in (*container["command"], *container["args"]))
            < ARGUMENT_BYTES / 4
        )
