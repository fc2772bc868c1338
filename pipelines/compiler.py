"""From a configuration to the arguments, the images and the YAML of the pipeline."""

import hashlib
import json
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from components.artifacts import sha256, tree_sha256
from components.errors import ConfigError
from pipelines.config import Config
from pipelines.environment_settings import Environment
from pipelines.train_to_serve import STEPS

COMPONENTS = Path(__file__).parent.parent / "components"
SHARED = ("artifacts.py", "images.py", "settings.py", "shards.py", "source")
DECISIVE = ("ingest", "preprocess", "train", "evaluate")  # whose code decides what a version is


LOCAL = Environment(kind="local")


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
    code = Path(config.model.code) if config.model.code else None
    code_sha256 = tree_sha256(code) if code else ""
    gate = config.gate.text() if config.gate else "null"
    decisive = {
        "preparation": config.preparation().text(),
        # where the folder lies does not matter, what is in it does
        "model": {**json.loads(config.model.text()), "code": code_sha256},
        "training": config.training.text(),
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
        "config": json.dumps(config.model_dump(mode="json"), sort_keys=True),
        "recipe": _digest(decisive),
        "code": str(code or ""),
        "code_sha256": code_sha256,
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

    from pipelines.placement import pipeline

    Compiler().compile(pipeline(environment), str(path), pipeline_parameters=arguments(config, environment))


def _inside(config: Config, environment: Environment) -> Config:
    """Return the configuration as pods see the world: no file of this machine, the store's own address."""
    if config.model.code:
        raise ConfigError(
            f"model.code is {config.model.code}, a folder of this machine, which pods do not see. "
            "Run it with -e local, or use the built-in model (remove model.build and model.code)."
        )
    if config.data.source and "://" not in config.data.source:
        raise ConfigError(
            f"data.source is {config.data.source}, a file of this machine, which pods do not see. "
            "Put it into a bucket and give its gs:// address, or its https:// address."
        )
    return config.model_copy(update={"store": environment.inside(config.store)})


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
