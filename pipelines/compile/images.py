"""Builds the images: `python -m modelyard.pipelines.compile.images`, as `make images` does.

An image is called after what it holds: `modelyard/serve:4f0c…`, the digest of its layers and settings, is the
same whenever the same bytes were built. Pushed to a registry, it is called by the registry's digest, and goes
on being called that when the same image is built again without a registry.
`build/images.json` maps each target to its reference, for the environments to read, and
`build/interfaces.json` each reference to the interfaces of its steps, for `check_interfaces` of preflight.py.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from modelyard.components.artifacts import write_text
from modelyard.components.interface import interface
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
WIDTH = 200  # a reference with its digest is long, and is there to be copied
EMULATOR = "gcs-emulator"
EPOCH = "315532800"  # 1980: the date of every file, and of the image where the builder lets one choose
BUILDER = {"DOCKER_BUILDKIT": "1", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}  # attestations tell the time


@dataclass(frozen=True)
class Image:
    """A built image: its size in bytes, uncompressed, and the seconds that its build took."""

    target: str
    reference: str
    size: int
    seconds: float


def build(
    target: str,
    base: str | None = None,
    registry: str | None = None,
    labels: Mapping[str, str] = NO_LABELS,
    known: str | None = None,
) -> Image:
    """Build a target of components/Dockerfile, and push it when a registry is given.

    Args:
        target: the stage, and the image's name.
        base: an image of Python on Debian, instead of the Dockerfile's own.
        registry: host and path in front of `modelyard/`.
        labels: OCI labels beside those of the Dockerfile.
        known: what the target's image was called until now.

    Raises:
        CalledProcessError: docker failed, and has said why.
    """
    started = time.monotonic()
    options = [
        part for key, value in build_arguments(base).items() for part in ("--build-arg", f"{key}={value}")
    ]
    options += [part for key, value in labels.items() for part in ("--label", f"{LABEL}.{key}={value}")]
    latest = f"modelyard/{target}:latest"
    _docker("build", "--file", "components/Dockerfile", "--target", target, "--tag", latest, *options, ".")
    built = _inspect(latest)
    name = f"{registry.rstrip('/')}/modelyard/{target}" if registry else f"modelyard/{target}"
    reference = f"{name}:{_content(built)}"
    _docker("tag", latest, reference)
    if registry:
        _docker("push", "--quiet", reference)
        pushed = _inspect(reference)["RepoDigests"]
        reference = next(one for one in pushed if one.startswith(f"{name}@"))
    elif known and known in built["RepoDigests"]:
        reference = known
    return Image(target, reference, built["Size"], time.monotonic() - started)


def build_arguments(base: str | None = None) -> dict[str, str]:
    """Return the arguments of components/Dockerfile, the same for every target."""
    held = " ".join(f"{image}={','.join(find_packages(image))}" for image in IMAGES)
    arguments = {"VERSION": version("modelyard"), "SOURCE_DATE_EPOCH": EPOCH, "CONTENTS": held}
    return arguments | ({"BASE": base} if base else {})


def _content(built: dict[str, Any]) -> str:
    """Return a digest of an image's layers and settings, without the time at which it was built."""
    parts = ("Cmd", "Entrypoint", "Env", "ExposedPorts", "Labels", "User", "WorkingDir")
    settings = {part: built["Config"].get(part) for part in parts}
    held = json.dumps([built["Architecture"], built["RootFS"]["Layers"], settings], sort_keys=True)
    return hashlib.sha256(held.encode()).hexdigest()[:16]


def _inspect(reference: str) -> dict[str, Any]:
    text = _docker("image", "inspect", reference, output=subprocess.PIPE)
    return json.loads(text)[0]  # type: ignore[no-any-return]


def _docker(*arguments: str, output: int = sys.stderr.fileno()) -> bytes:
    environment = {**BUILDER, **os.environ}
    done = subprocess.run(["docker", *arguments], cwd=ROOT, env=environment, check=True, stdout=output)
    return done.stdout or b""


def write_references(images: Sequence[Image], path: Path = REFERENCES) -> None:
    """Write the images' references into the JSON file at `path`, beside those of other targets."""
    known = read_build_record(path)
    write_text(path, json.dumps(known | {image.target: image.reference for image in images}, indent=2) + "\n")
    held = {image.reference: _interfaces(image.target) for image in images}
    file = path.with_name(Path(INTERFACES_FILE).name)
    write_text(file, json.dumps(read_build_record(file) | held, indent=2) + "\n")


def _interfaces(target: str) -> dict[str, str]:
    """Return the interface of each step that an image holds."""
    return {
        step.name: interface(step.name)
        for step in STEPS.values()
        if target in (step.image, *step.accelerated.values())
    }


def describe_unpushed(images: Sequence[Image], known: Mapping[str, str]) -> list[str]:
    """Return a sentence for each image whose name was a registry's and is one of this machine now."""
    return [
        f"{image.target} is another image than {known[image.target]}, which was pushed, and only this "
        "machine has it. `make images` with REGISTRY pushes it, for a cluster to pull."
        for image in images
        if "@" in known.get(image.target, "") and "@" not in image.reference
    ]


def describe_oversized(images: Sequence[Image], budgets: Mapping[str, int]) -> list[str]:
    """Return a sentence for each image that is larger than its budget in megabytes."""
    return [
        f"{image.target} holds {image.size / MEGABYTE:.0f} MB and its budget is {budgets[image.target]} MB. "
        "See what came in (`docker history`), or raise the budget in components/image-budgets.yaml."
        for image in images
        if image.size > budgets[image.target] * MEGABYTE
    ]


def create_table(images: Sequence[Image], budgets: Mapping[str, int]) -> Table:
    """Return the images with their sizes, their budgets and their references."""
    shown = Table("image", "MB", "budget", "seconds", "reference", box=None)
    for image in images:
        size, seconds = f"{image.size / MEGABYTE:.0f}", f"{image.seconds:.0f}"
        shown.add_row(image.target, size, str(budgets[image.target]), seconds, image.reference)
    for column in shown.columns[1:4]:
        column.justify = "right"
    return shown


def main() -> int:
    """Build what the command line names; 1 when docker fails or an image is too large."""
    budgets: dict[str, int] = yaml.safe_load(BUDGETS.read_text())
    parser = argparse.ArgumentParser(
        prog="python -m modelyard.pipelines.compile.images", description="Build the images."
    )
    parser.add_argument("targets", nargs="*", help="what to build; default: all but those for accelerators")
    parser.add_argument("--accelerators", action="store_true", help="build those for accelerators")
    parser.add_argument("--list", action="store_true", help="print the names of all images")
    parser.add_argument("--base", help="base image; default: that of components/Dockerfile")
    parser.add_argument("--registry", help="push there, for example localhost:5000")
    parser.add_argument("--source", help="where the source is, for the label of a release")
    parser.add_argument("--revision", help="the source's revision, for the label of a release")
    options = parser.parse_args()
    if options.list:
        print(*IMAGES, EMULATOR, *ACCELERATED_IMAGES)  # noqa: T201
        return 0
    if unknown := set(options.targets) - set(budgets):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; the images are {', '.join(budgets)}")
    targets = options.targets or (ACCELERATED_IMAGES if options.accelerators else (*IMAGES, EMULATOR))
    errors, known = Console(stderr=True), read_build_record(REFERENCES)
    labels = {key: value for key in ("source", "revision") if (value := getattr(options, key))}
    try:
        images = [
            build(target, options.base, options.registry, labels, known.get(target)) for target in targets
        ]
    except FileNotFoundError:
        errors.print("There is no docker here. Install Docker with BuildKit, then try again.")
        return 1
    except subprocess.CalledProcessError as error:
        errors.print(f"{' '.join(error.cmd[:3])} failed; the lines above say why.")
        return 1
    write_references(images)
    Console(width=WIDTH).print(create_table(images, budgets))
    for sentence in describe_unpushed(images, known):
        errors.print(sentence, style="yellow")
    problems = describe_oversized(images, budgets)
    for problem in problems:
        errors.print(problem, style="red")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
