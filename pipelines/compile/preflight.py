"""Checks a pipeline before `submit` and `schedule apply` send it to Kubeflow Pipelines.

Without these checks, the backend would reject some pipelines without a reason, and accept others that never
finish or reuse results of an older image.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from modelyard.components.errors import ConfigError
from modelyard.components.interface import compute_interface, describe_mismatch
from modelyard.components.machine import is_loopback
from modelyard.pipelines.config.validation import combine_errors
from modelyard.pipelines.environments.environment import INTERFACES_FILE, Environment
from modelyard.pipelines.environments.load import read_build_record
from modelyard.pipelines.steps import STEPS

ARGUMENT_BYTES = 128 * 1024  # Linux's limit for one argument of a program
IMMUTABLE_IMAGE = re.compile(r".+(@sha256:[0-9a-f]{64}|:[0-9a-f]{16})")  # a digest, or a tag of `make images`
TAG = re.compile(r".+:(?P<tag>[^:/@]+)")


def check_pipeline(arguments: Mapping[str, object], environment: Environment) -> tuple[str, ...]:
    """Return warnings about a pipeline with these arguments.

    Raises:
        ConfigError: the pipeline cannot run; the message has a line for each error.
    """
    images = {step: environment.image(step) for step in STEPS}
    errors = [*_find_errors(arguments, images, environment), *_find_mismatches(environment)]
    if errors:
        raise combine_errors("The pipeline", errors)
    return tuple(_find_warnings(images, environment))


def _find_errors(
    arguments: Mapping[str, object], images: Mapping[str, str], environment: Environment
) -> Iterator[str]:
    size = len(json.dumps(arguments).encode())  # the root driver gets them as one argument
    if size >= ARGUMENT_BYTES:
        largest = max(arguments, key=lambda name: len(str(arguments[name])))
        yield (
            f"The configuration has {size:,} bytes, the largest part in `{largest}`; Linux limits an "
            f"argument of a process to {ARGUMENT_BYTES - 1:,}. Move long lists into the dataset or the "
            "model's code."
        )
    for step, image in sorted(images.items()):
        tag = TAG.fullmatch(image)
        if not IMMUTABLE_IMAGE.fullmatch(image) and (tag is None or tag["tag"] == "latest"):
            yield (
                f"The image of {step} is {image}, which can change without a change of the cache key. Set "
                "its digest in environment.images, as `make images REGISTRY=…` does."
            )
    if is_loopback(environment.storage_endpoint or ""):
        yield (
            f"environment.storage_endpoint is {environment.storage_endpoint}, which in a pod is the pod "
            "itself. Set the URL of the emulator inside the cluster, and this URL as "
            "storage_endpoint_outside."
        )


def check_interfaces(environment: Environment) -> None:
    """Compare the interfaces of images that `make images` built on this machine with those of the pipeline.

    The steps in other images compare them when they start.

    Raises:
        ConfigError: an image has another version of modelyard.
    """
    if errors := list(_find_mismatches(environment)):
        raise ConfigError(errors[0])


def _find_mismatches(environment: Environment) -> Iterator[str]:
    interfaces = read_build_record(Path(INTERFACES_FILE))
    for step in STEPS:
        image, expected = environment.image(step), compute_interface(step)
        if (actual := interfaces.get(image, {}).get(step, expected)) != expected:
            yield describe_mismatch(image, actual, expected)


def _find_warnings(images: Mapping[str, str], environment: Environment) -> Iterator[str]:
    tagged_steps = sorted(step for step, image in images.items() if not IMMUTABLE_IMAGE.fullmatch(image))
    if tagged_steps:
        yield (
            f"The images of {', '.join(tagged_steps)} have a tag: when it moves, the cache returns results "
            "of the old image. Set their digests, as `make images REGISTRY=…` does."
        )
    resources = {step: environment.resources(step) for step in STEPS}
    for step, settings in resources.items():
        if settings.timeout and settings.timeout > environment.active_deadline:
            yield (
                f"{step} may take {settings.timeout} s, but the run is stopped after "
                f"{environment.active_deadline} s (environment.active_deadline)."
            )
    if retried_steps := [step for step, settings in resources.items() if settings.retries]:
        yield (
            f"{', '.join(retried_steps)} have retries. By default, Kubeflow Pipelines replaces lost pods but "
            "does not retry failed steps. Set in workflow-controller-configmap under workflowDefaults: "
            "templateDefaults.retryStrategy: {limit: '0', retryPolicy: Always}."
        )
