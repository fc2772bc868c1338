"""Builds the images: `python -m modelyard.pipelines.compile.images`, for `make images`.

The tag of an image, as in `modelyard/serve:4f0c…`, is a digest of its layers and settings, so equal builds
have equal tags. The reference of a pushed image has the registry's digest instead; a later equal build
without a registry keeps this reference.

build/images.json       the reference of each target, for environments
build/interfaces.json   the interfaces of the steps in each image, for `check_interfaces` in preflight.py
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from modelyard.components.artifacts import write_text
from modelyard.components.interface import compute_interface
from modelyard.pipelines.compile.code import find_packages
from modelyard.pipelines.environments.environment import IMAGES_FILE, INTERFACES_FILE
from modelyard.pipelines.environments.load import read_build_record
from modelyard.pipelines.steps import ACCELERATED_IMAGES, IMAGES, STEPS

ROOT = Path(__file__).parents[3]
BUDGETS = ROOT / "components/image-budgets.yaml"
REFERENCES = ROOT / IMAGES_FILE
LABEL = "org.opencontainers.image"
NO_LABELS: Mapping[str, str] = {}
MEGABYTE = 10**6
WIDTH = 200  # references with digests are long
EMULATOR = "gcs-emulator"
EPOCH = "315532800"  # 1980: the date of files, and of the image if the builder supports it
BUILDER = {"DOCKER_BUILDKIT": "1", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}  # attestations contain the time


@dataclass(frozen=True)
class Image:
    """A built image: uncompressed size in bytes, and build time in seconds."""

    target: str
    reference: str
    size: int
    seconds: float


def build(
    target: str,
    base: str | None = None,
    registry: str | None = None,
    labels: Mapping[str, str] = NO_LABELS,
    previous: str | None = None,
) -> Image:
    """Build a target of components/Dockerfile, and push it if there is a registry.

    `base` is a base image with Python on Debian, by default that of the Dockerfile. `registry` is the host
    and path before `modelyard/`. `labels` are additional OCI labels, `previous` is the previous reference.

    Raises:
        CalledProcessError: docker failed and printed the reason.
    """
    start = time.monotonic()
    options = [
        part for key, value in build_arguments(base).items() for part in ("--build-arg", f"{key}={value}")
    ]
    options += [part for key, value in labels.items() for part in ("--label", f"{LABEL}.{key}={value}")]
    latest = f"modelyard/{target}:latest"
    _docker("build", "--file", "components/Dockerfile", "--target", target, "--tag", latest, *options, ".")
    image = _inspect(latest)
    name = f"{registry.rstrip('/')}/modelyard/{target}" if registry else f"modelyard/{target}"
    reference = f"{name}:{_content_digest(image)}"
    _docker("tag", latest, reference)
    if registry:
        _docker("push", "--quiet", reference)
        digests = _inspect(reference)["RepoDigests"]
        reference = next(digest for digest in digests if digest.startswith(f"{name}@"))
    elif previous and previous in image["RepoDigests"]:
        reference = previous
    return Image(target, reference, image["Size"], time.monotonic() - start)


def build_arguments(base: str | None = None) -> dict[str, str]:
    """Return the build arguments of components/Dockerfile, for all targets."""
    packages = " ".join(f"{image}={','.join(find_packages(image))}" for image in IMAGES)
    arguments = {"VERSION": version("modelyard"), "SOURCE_DATE_EPOCH": EPOCH, "CONTENTS": packages}
    return arguments | ({"BASE": base} if base else {})


def _content_digest(image: dict[str, Any]) -> str:
    """Return a digest of the layers and settings of an image, without its build time."""
    keys = ("Cmd", "Entrypoint", "Env", "ExposedPorts", "Labels", "User", "WorkingDir")
    settings = {key: image["Config"].get(key) for key in keys}
    content = json.dumps([image["Architecture"], image["RootFS"]["Layers"], settings], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _inspect(reference: str) -> dict[str, Any]:
    text = _docker("image", "inspect", reference, output=subprocess.PIPE)
    return json.loads(text)[0]  # type: ignore[no-any-return]


def _docker(*arguments: str, output: int = sys.stderr.fileno()) -> bytes:
    environment = {**BUILDER, **os.environ}
    process = subprocess.run(["docker", *arguments], cwd=ROOT, env=environment, check=True, stdout=output)
    return process.stdout or b""


def write_references(images: Sequence[Image], path: Path = REFERENCES) -> None:
    """Add the references and interfaces of images to the JSON files, which keep those of other targets."""
    references = {image.target: image.reference for image in images}
    interfaces = {
        image.reference: {
            step.name: compute_interface(step.name)
            for step in STEPS.values()
            if image.target in (step.image, *step.accelerator_images.values())
        }
        for image in images
    }
    for file, record in ((path, references), (path.with_name(Path(INTERFACES_FILE).name), interfaces)):
        write_text(file, json.dumps(read_build_record(file) | record, indent=2) + "\n")


def describe_unpushed(images: Sequence[Image], previous: Mapping[str, str]) -> list[str]:
    """Return a sentence for each image that differs from a pushed one and is only on this machine."""
    return [
        f"{image.target} differs from the pushed image {previous[image.target]} and is only on this machine. "
        "Push it for clusters with `make images REGISTRY=…`."
        for image in images
        if "@" in previous.get(image.target, "") and "@" not in image.reference
    ]


def describe_oversized(images: Sequence[Image], budgets: Mapping[str, int]) -> list[str]:
    """Return a sentence for each image that is larger than its budget in megabytes."""
    return [
        f"{image.target} has {image.size / MEGABYTE:.0f} MB; its budget is {budgets[image.target]} MB. "
        "Find the new files with `docker history`, or raise the budget in components/image-budgets.yaml."
        for image in images
        if image.size > budgets[image.target] * MEGABYTE
    ]


def create_table(images: Sequence[Image], budgets: Mapping[str, int]) -> Table:
    """Return a table of images with size, budget and reference."""
    table = Table("image", "MB", "budget", "seconds", "reference", box=None)
    for image in images:
        size, seconds = f"{image.size / MEGABYTE:.0f}", f"{image.seconds:.0f}"
        table.add_row(image.target, size, str(budgets[image.target]), seconds, image.reference)
    for column in table.columns[1:4]:
        column.justify = "right"
    return table


def main() -> int:
    """Build the images on the command line; return 1 when docker fails or an image is too large."""
    budgets: dict[str, int] = yaml.safe_load(BUDGETS.read_text())
    options = _parse_arguments(budgets)
    if options.list:
        print(*IMAGES, EMULATOR, *ACCELERATED_IMAGES)  # noqa: T201
        return 0
    targets = options.targets or (ACCELERATED_IMAGES if options.accelerators else (*IMAGES, EMULATOR))
    errors, previous = Console(stderr=True), read_build_record(REFERENCES)
    labels = {key: value for key in ("source", "revision") if (value := getattr(options, key))}
    try:
        images = [
            build(target, options.base, options.registry, labels, previous.get(target)) for target in targets
        ]
    except FileNotFoundError:
        errors.print("The command docker is not on PATH. Install Docker with BuildKit.")
        return 1
    except subprocess.CalledProcessError as error:
        errors.print(f"{' '.join(error.cmd[:3])} failed; the output above has the reason.")
        return 1
    write_references(images)
    Console(width=WIDTH).print(create_table(images, budgets))
    for sentence in describe_unpushed(images, previous):
        errors.print(sentence, style="yellow")
    oversized_images = describe_oversized(images, budgets)
    for sentence in oversized_images:
        errors.print(sentence, style="red")
    return 1 if oversized_images else 0


def _parse_arguments(targets: Collection[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m modelyard.pipelines.compile.images", description="Build the images."
    )
    parser.add_argument(
        "targets", nargs="*", help="images to build; default: all except those for accelerators"
    )
    parser.add_argument("--accelerators", action="store_true", help="build the images for accelerators")
    parser.add_argument("--list", action="store_true", help="print the names of all images")
    parser.add_argument("--base", help="base image; default: that of components/Dockerfile")
    parser.add_argument("--registry", help="registry to push to, such as localhost:5000")
    parser.add_argument("--source", help="URL of the source, for the label of a release")
    parser.add_argument("--revision", help="revision of the source, for the label of a release")
    options = parser.parse_args()
    if unknown := set(options.targets) - set(targets):
        parser.error(f"unknown images: {', '.join(sorted(unknown))}; choose from {', '.join(targets)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
