"""From a configuration to the arguments, the images and the YAML of the pipeline."""

import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from packaging.requirements import Requirement

from modelyard.components.artifacts import sha256, tree_sha256
from modelyard.components.errors import ConfigError
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.train_to_serve import STEPS

COMPONENTS = Path(__file__).parents[2] / "components"
SHARED = ("artifacts.py", "images.py", "settings.py", "shards.py", "source")
DECISIVE = ("ingest", "preprocess", "train", "evaluate")  # whose code decides what a version is


LOCAL = Environment(kind="local")
NO_OPTIONS: Mapping[str, bool | int] = {}  # what no configuration has: `skip_unchanged`, `force_after`
UPLOADS = "`modelyard run` and `modelyard submit` upload it; a compiled pipeline needs"
ELSEWHERE = {
    "model.code": f"{UPLOADS} the gs:// address that they show.",
    "data.source": f"{UPLOADS} a gs:// or https:// address.",
    "data.endpoint": "Give the address that the emulator has inside the cluster, or remove it.",
    "store.url": "Give gs://bucket/prefix, or leave it to the environment.",
}


def arguments(config: Config, environment: Environment = LOCAL) -> dict[str, str]:
    """Return the pipeline's arguments: each section of the configuration as JSON, and what identifies it.

    Args:
        config: the configuration.
        environment: where steps and servers run. Of it, only the steps' images are part of what identifies
            the run, as the fingerprint of the code that they hold.

    Raises:
        ConfigError: the configuration names files of this machine, and the environment is a cluster.
    """
    if environment.kind == "kubernetes":
        config = _inside(config, environment)
    code, code_sha256 = config.code(), config.code_sha256()
    gate = config.gate.text() if config.gate else "null"
    decisive = {
        "preparation": config.preparation().text(),
        # where the folder lies does not matter, what is in it does
        "model": {**json.loads(config.model.text()), "code": code_sha256},
        "training": config.training.decisive(),
        "gate": gate,
        "code": [_code(step, environment) for step in DECISIVE],
    }
    return {
        "name": config.name,
        "source": config.source().text(),
        "preparation": config.preparation().text(),
        "architecture": config.model.text(),
        "training": config.training.text(),
        "gate": gate,
        "serving": config.serving.text(),
        "store": config.store.text(),
        "rollout": config.rollout.text(),
        "target": environment.target().text(),
        "config": json.dumps(config.model_dump(mode="json", exclude={"schedule"}), sort_keys=True),
        "recipe": _digest(decisive),
        "code": code.text() if code else "",
        "code_sha256": code_sha256,
        "root": environment.pipeline_root or "",
    }


@cache
def step_sha256(step: str) -> str:
    """Return the fingerprint of a step: its own source, the shared source, the installed packages."""
    shared = [_source_sha256(COMPONENTS / name) for name in SHARED]
    return _digest([tree_sha256(COMPONENTS / step), shared, _packages()])


def local_images() -> dict[str, str]:
    """Return an image reference per step whose tag is the step's fingerprint.

    The reference enters the cache key, which otherwise does not cover imported code.
    """
    tags = {step: _digest([step_sha256(step), _shown(step)]) for step in STEPS}
    return {step: f"modelyard/python-{step}:{tag[:16]}" for step, tag in tags.items()}


def _shown(step: str) -> str:
    """Return the fingerprint of what changes what people see of a step, and not what comes of the run."""
    return tree_sha256(COMPONENTS / "report") if step == "evaluate" else ""


def compile_to(config: Config, path: Path, environment: Environment = LOCAL) -> None:
    """Write the pipeline as KFP's YAML, with the configuration as its default arguments."""
    from kfp.compiler import Compiler

    from modelyard.pipelines.compile.placement import pipeline

    Compiler().compile(pipeline(environment), str(path), pipeline_parameters=arguments(config, environment))


def compile_package(environment: Environment) -> bytes:
    """Return the pipeline as KFP's YAML, without arguments: of an environment, always the same bytes."""
    from kfp.compiler import Compiler

    from modelyard.pipelines.compile.placement import pipeline

    with TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        Compiler().compile(pipeline(environment), str(path))
        return path.read_bytes()


def _inside(config: Config, environment: Environment) -> Config:
    """Return the configuration as pods see the world: no file of this machine, the store's own address."""
    given = config.data.endpoint
    here = {
        "model.code": config.model.code,
        "data.source": config.data.source,
        "data.endpoint": None if given == environment.storage_endpoint else given,
        "store.url": config.store.url,
    }
    for key, value in here.items():
        if value and (why := _only_here(value)):
            raise ConfigError(f"{key} is {value}, {why}, which pods do not see. {ELSEWHERE[key]}")
    changed: dict[str, Any] = {"store": environment.inside(config.store)}
    if (config.data.source or "").startswith("gs://") and not given:  # as the store's, and the artifacts'
        changed["data"] = config.data.model_copy(update={"endpoint": environment.storage_endpoint})
    return config.model_copy(update=changed)


def _only_here(address: str) -> str | None:
    """Return what a place is that only this machine has; None when pods reach it, too."""
    parts = urlsplit(address)
    if parts.scheme in ("http", "https"):
        host = parts.hostname or ""
        return "this machine itself" if host == "localhost" or re.match(r"127\.|::1$", host) else None
    return None if parts.scheme == "gs" else "a place of this machine"


def _code(step: str, environment: Environment) -> str:
    """Return what identifies the code of a step: here its source, on a cluster the image that holds it."""
    return environment.image(step) if environment.kind == "kubernetes" else step_sha256(step)


@cache
def _packages() -> dict[str, str]:
    """Return the installed versions of the packages that modelyard depends on."""
    found = {}
    for line in requires("modelyard") or []:
        name = Requirement(line).name
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # not for this platform
    return found


def _source_sha256(path: Path) -> str:
    return tree_sha256(path) if path.is_dir() else sha256(path)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
