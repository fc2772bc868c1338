"""What is checked before a pipeline is sent: what would be refused there, or worse, taken and never end."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from kfp.pipeline_spec.pipeline_spec_pb2 import ParameterType

from modelyard.components.errors import ConfigError
from modelyard.pipelines.compile.lint import retries
from modelyard.pipelines.compile.lint.compiled import Compiled
from modelyard.pipelines.compile.lint.steps import ARGUMENT_BYTES
from modelyard.pipelines.compile.lint.traps import broken
from modelyard.pipelines.environments.environment import Environment

SCHEMA = "2.1.0"
WORKFLOW_BYTES = 700_000  # of what etcd takes, Argo's own part comes on top
NAME_LENGTH = 40  # the workflow's name is this and a suffix, and a label's value has 63
NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
IMMUTABLE = re.compile(r".+(@sha256:[0-9a-f]{64}|:[0-9a-f]{16})")
TAG = re.compile(r".+:(?P<tag>[^:/@]+)")
RESOURCE = re.compile(r"[a-z0-9.-]+\.[a-z]+/[A-Za-z0-9._-]+")
KINDS: dict[Any, tuple[str, tuple[type, ...]]] = {
    ParameterType.STRING: ("text", (str,)),
    ParameterType.NUMBER_INTEGER: ("a whole number", (int,)),
    ParameterType.NUMBER_DOUBLE: ("a number", (int, float)),
    ParameterType.BOOLEAN: ("true or false", (bool,)),
    ParameterType.LIST: ("a list", (list,)),
    ParameterType.STRUCT: ("a dict", (dict,)),
}


def check(package: bytes, arguments: Mapping[str, Any], environment: Environment) -> tuple[str, ...]:
    """Return a sentence for each thing to know about a pipeline that can be sent.

    Args:
        package: the compiled pipeline, as YAML.
        arguments: its parameters.
        environment: where it would run.

    Raises:
        ConfigError: it cannot be sent; every reason is in it, a line each.
    """
    compiled = Compiled.of(package)
    problems = [
        *broken(compiled),
        *_names(compiled),
        *_arguments(compiled, arguments),
        *_sizes(package, arguments),
        *_images(compiled),
        *_pods(compiled),
        *_environment(environment),
    ]
    if len(problems) == 1:
        raise ConfigError(problems[0])
    if problems:
        raise ConfigError("\n  ".join([f"The pipeline has {len(problems)} problems.", *problems]))
    return (*_mutable_tags(compiled), *_times(compiled, environment), *retries.notes(environment))


def _names(compiled: Compiled) -> Iterator[str]:
    spec = compiled.spec
    if spec.schema_version != SCHEMA:
        yield (
            f"The pipeline has the schema version {spec.schema_version!r}, and Kubeflow Pipelines 2.17 reads "
            f"{SCHEMA}. Install the version of kfp that modelyard names."
        )
    named = [("pipeline", spec.pipeline_info.name), *(("task", task.name) for task in compiled.tasks())]
    for kind, name in named:
        if not NAME.fullmatch(name) or len(name) > NAME_LENGTH:
            yield (
                f"The name {name!r} of a {kind} does not fit: at most {NAME_LENGTH} lower-case letters, "
                "digits and dashes become the name of a workflow."
            )


def _arguments(compiled: Compiled, arguments: Mapping[str, Any]) -> Iterator[str]:
    known = compiled.spec.root.input_definitions.parameters
    for name in sorted(arguments.keys() - known.keys()):
        yield f"The pipeline has no parameter {name}. Compile it anew."
    for name, parameter in sorted(known.items()):
        if name not in arguments:
            if not parameter.is_optional and not parameter.HasField("default_value"):
                yield f"The parameter {name} of the pipeline is not given. Compile it anew."
            continue
        words, kinds = KINDS[parameter.parameter_type]
        value = arguments[name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            yield f"The parameter {name} is {value!r:.60} and must be {words}. Compile the pipeline anew."


def _sizes(package: bytes, arguments: Mapping[str, Any]) -> Iterator[str]:
    """Look at what becomes one argument of a program, and at the whole."""
    given = len(json.dumps(arguments).encode())  # the root's driver gets all of them in one
    if given >= ARGUMENT_BYTES:
        largest = max(arguments, key=lambda name: len(str(arguments[name])))
        yield (
            f"The configuration has {given:,} bytes, most of them in `{largest}`, and Linux passes at most "
            f"{ARGUMENT_BYTES - 1:,} to a program. Shorten it: long lists belong into the dataset, or into "
            "the model's code."
        )
    if len(package) + given > WORKFLOW_BYTES:
        yield (
            f"The pipeline and its arguments have {len(package) + given:,} bytes, and a workflow holds at "
            f"most about {WORKFLOW_BYTES:,}. Move what the steps do into their image."
        )


def _images(compiled: Compiled) -> Iterator[str]:
    for step, image in _references(compiled):
        tag = TAG.fullmatch(image)
        if not IMMUTABLE.fullmatch(image) and (tag is None or tag["tag"] == "latest"):
            yield (
                f"The image of {step} is {image}, which is another one tomorrow, while the cache goes by the "
                "name. Name one by its digest, as `make images REGISTRY=…` does (environment.images)."
            )


def _mutable_tags(compiled: Compiled) -> Iterator[str]:
    mutable = [step for step, image in _references(compiled) if not IMMUTABLE.fullmatch(image)]
    if mutable:
        yield (
            f"The images of {', '.join(mutable)} are named by a tag: when it is moved, the cache gives "
            "results of the old image. Name images by their digest, as `make images REGISTRY=…` does."
        )


def _references(compiled: Compiled) -> Iterator[tuple[str, str]]:
    for step, container in compiled.containers():
        if container:
            yield step, container["image"]


def _pods(compiled: Compiled) -> Iterator[str]:
    if not compiled.kubernetes.get("pipelineConfig", {}).get("activeDeadlineSeconds"):
        yield (
            "The pipeline has no deadline, and Kubeflow Pipelines would leave it running for ever when a pod "
            "cannot start. Set environment.active_deadline."
        )
    for step, container in compiled.containers():
        resources = container.get("resources", {}) if container else {}
        kind = resources.get("accelerator", {}).get("resourceType")
        if kind is not None and not RESOURCE.fullmatch(kind):
            yield (
                f"The accelerator of {step} is {kind!r}, which is no resource of Kubernetes, as "
                "nvidia.com/gpu and google.com/tpu are."
            )


def _environment(environment: Environment) -> Iterator[str]:
    inside = environment.storage_endpoint or ""
    if re.match(r"https?://(localhost|127\.|\[::1\])", inside):
        yield (
            f"environment.storage_endpoint is {inside}, where a pod reaches itself. Give the address that "
            "the emulator has inside the cluster, and this one as storage_endpoint_outside."
        )


def _times(compiled: Compiled, environment: Environment) -> Iterator[str]:
    for step, _ in compiled.containers():
        timeout = int(compiled.pod(step).get("activeDeadlineSeconds", 0))
        if timeout > environment.active_deadline:
            yield (
                f"{step} may take {timeout} s, and the whole run is stopped after "
                f"{environment.active_deadline} s (environment.active_deadline)."
            )
