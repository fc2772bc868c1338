"""The checks of `submit` and `schedule apply` before they send a pipeline to Kubeflow Pipelines.

    notes = check_pipeline(arguments, environment)

The backend refuses some of these pipelines with an error that names no cause, and accepts others that never
finish or that reuse results of an older image.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from modelyard.components.errors import ConfigError
from modelyard.components.interface import interface, mismatch
from modelyard.components.machine import is_loopback
from modelyard.pipelines.environments.environment import INTERFACES_FILE, Environment
from modelyard.pipelines.environments.load import read_build_record
from modelyard.pipelines.steps import STEPS

ARGUMENT_BYTES = 128 * 1024  # Linux's limit for one argument of a program
IMMUTABLE = re.compile(r".+(@sha256:[0-9a-f]{64}|:[0-9a-f]{16})")
TAG = re.compile(r".+:(?P<tag>[^:/@]+)")


def check_pipeline(arguments: Mapping[str, object], environment: Environment) -> tuple[str, ...]:
    """Return notes about a pipeline that can be sent.

    Args:
        arguments: the values of its parameters.
        environment: where it would run.

    Raises:
        ConfigError: it cannot be sent; the message has a line for every problem.
    """
    images = {step: environment.image(step) for step in STEPS}
    problems = [*_problems(arguments, images, environment), *_find_mismatches(environment)]
    if len(problems) == 1:
        raise ConfigError(problems[0])
    if problems:
        raise ConfigError("\n  ".join([f"The pipeline has {len(problems)} problems.", *problems]))
    return tuple(_notes(images, environment))


def _problems(
    arguments: Mapping[str, object], images: Mapping[str, str], environment: Environment
) -> Iterator[str]:
    size = len(json.dumps(arguments).encode())  # the root's driver gets all of them as one argument
    if size >= ARGUMENT_BYTES:
        largest = max(arguments, key=lambda name: len(str(arguments[name])))
        yield (
            f"The configuration has {size:,} bytes, most of them in `{largest}`, and Linux passes at most "
            f"{ARGUMENT_BYTES - 1:,} to a program. Move long lists into the dataset or the model's code."
        )
    for step, image in sorted(images.items()):
        tag = TAG.fullmatch(image)
        if not IMMUTABLE.fullmatch(image) and (tag is None or tag["tag"] == "latest"):
            yield (
                f"The image of {step} is {image}, which can change while the cache key stays the same. Name "
                "it by its digest in environment.images, as `make images REGISTRY=…` does."
            )
    if is_loopback(environment.storage_endpoint or ""):
        yield (
            f"environment.storage_endpoint is {environment.storage_endpoint}, which is the pod itself when a "
            "pod uses it. Set the emulator's address inside the cluster, and this one as "
            "storage_endpoint_outside."
        )


def check_interfaces(environment: Environment) -> None:
    """Compare the images that `make images` built here with what the pipeline expects of them.

    Of another image the interface is not known here; its steps compare it themselves.

    Raises:
        ConfigError: an image is of another version.
    """
    if problems := list(_find_mismatches(environment)):
        raise ConfigError(problems[0])


def _find_mismatches(environment: Environment) -> Iterator[str]:
    known = read_build_record(Path(INTERFACES_FILE))
    for step in STEPS:
        image, expected = environment.image(step), interface(step)
        if (actual := known.get(image, {}).get(step, expected)) != expected:
            yield mismatch(image, actual, expected)


def _notes(images: Mapping[str, str], environment: Environment) -> Iterator[str]:
    tagged = sorted(step for step, image in images.items() if not IMMUTABLE.fullmatch(image))
    if tagged:
        yield (
            f"The images of {', '.join(tagged)} are named by a tag: when it is moved, the cache returns "
            "results of the old image. Name images by their digest, as `make images REGISTRY=…` does."
        )
    resources = {step: environment.resources(step) for step in STEPS}
    for step, one in resources.items():
        if one.timeout and one.timeout > environment.active_deadline:
            yield (
                f"{step} may take {one.timeout} s, but the whole run is stopped after "
                f"{environment.active_deadline} s (environment.active_deadline)."
            )
    if retried := [step for step, one in resources.items() if one.retries]:
        yield (
            f"{', '.join(retried)} ask for retries. Kubeflow Pipelines as shipped replaces lost pods and "
            "does not retry failed steps, unless workflow-controller-configmap has under workflowDefaults: "
            "templateDefaults.retryStrategy: {limit: '0', retryPolicy: Always}."
        )
