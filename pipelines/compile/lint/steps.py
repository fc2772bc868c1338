"""Traps of single steps: what their containers run, what they take, and what is kept of them."""

import ast
import builtins
import symtable
from collections.abc import Callable, Iterator
from typing import Any

from kfp.pipeline_spec.pipeline_spec_pb2 import ParameterType

from modelyard.pipelines.compile.lint.compiled import Compiled, program, source
from modelyard.pipelines.compile.lint.rule import Rule

Json = dict[str, Any]
NEVER_CACHED = ("fingerprint", "deploy", "explain")
ARGUMENT_BYTES = 128 * 1024
TIMES = ("pipeline_job_create_time_utc", "pipeline_job_schedule_time_utc")
NESTED = {ParameterType.LIST: "list", ParameterType.STRUCT: "dict"}
# what the wrapper around a component's source imports with `from kfp.dsl import *; from typing import *`
IMPORTED = {"kfp", "dsl", "Artifact", "Dataset", "Model", "Metrics", "ClassificationMetrics", "HTML"}
IMPORTED |= {"Markdown", "Input", "Output", "InputPath", "OutputPath", "PipelineTaskFinalStatus"}
IMPORTED |= {"List", "Dict", "Optional", "NamedTuple", "Any", "Union", "Tuple"}


def _time_placeholder(compiled: Compiled) -> Iterator[str]:
    for task in compiled.tasks():
        for name, given in task.spec.inputs.parameters.items():
            if any(time in str(given.runtime_value.constant) for time in TIMES):
                yield f"{task.place}, {name}"


def _of_containers(trips: Callable[[Json], bool]) -> Callable[[Compiled], Iterator[str]]:
    def places(compiled: Compiled) -> Iterator[str]:
        yield from (step for step, container in compiled.containers() if container and trips(container))

    return places


def _not_lightweight(container: Json) -> bool:
    return not source(container)


def _importer(compiled: Compiled) -> Iterator[str]:
    yield from (step for step, container in compiled.containers() if container is None)


def _sets_uri(container: Json) -> bool:
    if not (text := source(container)):
        return False
    targets = [
        target
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    ]
    return any(isinstance(target, ast.Attribute) and target.attr == "uri" for target in targets)


def _lost_names(compiled: Compiled) -> Iterator[str]:
    for step, container in compiled.containers():
        text = source(container) if container else ""
        if lost := sorted(_free(symtable.symtable(text, step, "exec")) - _known(text)) if text else []:
            yield f"{step}, {', '.join(lost)}"


def _free(table: symtable.SymbolTable) -> set[str]:
    """Return the names that the functions of a source take from outside of themselves."""
    found = {
        symbol.get_name()
        for symbol in table.get_symbols()
        if table.get_type() == "function" and symbol.is_global() and symbol.is_referenced()
    }
    return found.union(*map(_free, table.get_children()))


def _known(text: str) -> set[str]:
    """Return the names that a component's source has at its top."""
    top = symtable.symtable(text, "component", "exec")
    return set(top.get_identifiers()) | set(dir(builtins)) | IMPORTED


def _nested_parameter(compiled: Compiled) -> Iterator[str]:
    for name, component in sorted(compiled.spec.components.items()):
        if component.executor_label:
            for key, parameter in sorted(component.input_definitions.parameters.items()):
                if parameter.parameter_type in NESTED:
                    yield f"{name.removeprefix('comp-')}, {key}: {NESTED[parameter.parameter_type]}"


def _cached(compiled: Compiled) -> Iterator[str]:
    for task in compiled.tasks():
        if task.name in NEVER_CACHED and task.spec.caching_options.enable_cache:
            yield task.place


def _long_argument(container: Json) -> bool:
    return any(len(part.encode()) >= ARGUMENT_BYTES for part in program(container))


def _workspace(compiled: Compiled) -> Iterator[str]:
    if "workspace" in compiled.kubernetes.get("pipelineConfig", {}):
        yield "the pipeline"


RULES = (
    Rule(
        "placeholder of a time",
        "kfp.local crashes on it",
        "Take the time in the step, or pass it with the run",
        _time_placeholder,
    ),
    Rule(
        "container component",
        "kfp.local runs it in Docker only",
        "Write a lightweight component whose image holds the program",
        _of_containers(_not_lightweight),
    ),
    Rule(
        "importer",
        "neither the cache nor kfp.local sees that what lies at the address changed",
        "Fetch it in a step that takes a fingerprint of it",
        _importer,
    ),
    Rule(
        "embedded artifact",
        "its archive carries times, so that no two compilations are alike and the cache never hits",
        "Put the files into the image",
        _of_containers(lambda container: "__KFP_EMBEDDED_ARCHIVE" in source(container)),
    ),
    Rule(
        "packages installed when a step starts",
        "the pod needs the network, and gets other packages tomorrow",
        "Say install_kfp_package=False, and put packages into the image",
        _of_containers(lambda container: any("pip install" in part for part in program(container))),
    ),
    Rule(
        "artifact with an address of its own",
        "the backend refuses one that is not under the run's pipeline root, and kfp.local takes it",
        "Write to its path, and give back another address as a parameter",
        _of_containers(_sets_uri),
    ),
    Rule(
        "names from outside of the function",
        "only the function's own source gets into the pod",
        "Import them inside of the function",
        _lost_names,
    ),
    Rule(
        "list or dict as a parameter",
        "whole numbers in it become floats",
        "Pass JSON as text",
        _nested_parameter,
    ),
    Rule(
        "step from the cache that must run every time",
        "it looks at, or changes, what is outside of the pipeline",
        "Say set_caching_options(False)",
        _cached,
    ),
    Rule(
        "argument of 128 KiB",
        "Linux starts no program with one, here or in a pod",
        "Shorten the function, or import what it does from the image",
        _of_containers(_long_argument),
    ),
    Rule(
        "workspace",
        "its volume's name enters the cache key, so that the cache never hits",
        "Pass artifacts between the steps",
        _workspace,
    ),
)
