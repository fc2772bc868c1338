"""Publish a version and roll it out, on whichever serving platform.

Every part may be killed and started again: the run's fingerprint finds the version that was begun, the
manifest makes it whole, and the pointer moves by compare-and-swap.
"""

from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path

from modelyard.components import artifacts, records
from modelyard.components.artifacts import Decision, History, Identity, Manifest, Metrics, Outcome, Signature
from modelyard.components.deploy.platforms import find_platform_class, open_platform
from modelyard.components.deploy.platforms.base import PlatformConfig
from modelyard.components.deploy.rollout import RolloutController
from modelyard.components.deploy.settings import Target
from modelyard.components.deploy.spec import DeploySpec
from modelyard.components.deploy.verification import pin_version
from modelyard.components.kubernetes import Json
from modelyard.components.records import OutcomeRecord
from modelyard.components.step import log
from modelyard.components.store.models import ModelStore, open_store
from modelyard.components.store.records import now
from modelyard.components.store.storage import open_objects

SERVING_PACKAGES = ("modelyard", "numpy", "onnxruntime")
PIPELINE = "pipeline"


def deploy(
    model: str,
    history: str,
    evaluation: str,
    spec: DeploySpec,
    identity: Identity,
    outcome: str,
) -> int:
    """Publish, verify and promote; the arguments are those of the component `deploy`.

    Returns:
        The version, which is the same whenever the same run is deployed.

    Raises:
        DeployError: its server does not run, or does not do what is asked of it.
        ClusterError: the cluster refuses it, or does not answer.
        StoreError: the store cannot be reached, read or written.
    """
    models, name = open_store(spec.store), spec.name
    version = models.reserve(name, identity.run)
    found = Path(evaluation)
    evaluated = [found / name for name in ("golden.json", "report.html", "training_hashes.npy")]
    files = _files([Path(model), *evaluated, Path(history) / "history.json"])
    manifest = Manifest(
        model=name,
        version=version,
        run=identity.run,
        run_id=records.run_id() or "",
        created=now(),
        data=identity.data,
        recipe_sha256=spec.recipe_sha256,
        code_sha256=spec.code_sha256,
        config=spec.config,
        files={path: artifacts.sha256(file) for path, file in files.items()},
        signature=artifacts.read(Path(model) / "signature.json", Signature),
        metrics=artifacts.read(found / "metrics.json", Metrics),
        decision=artifacts.read(found / "decision.json", Decision),
        packages=_packages(Path(history) / "history.json"),
    )
    models.publish(name, version, files, manifest)
    log(f"published version {version} of {name}")
    result = _hold_if_rolled_back(models, name, version, spec.target)
    if result is None:
        sections = _serving_sections(models, name, version, spec.serving)
        platform = open_platform(
            PlatformConfig(name, models, spec.target, spec.store.text(), sections, spec.rollout, log)
        )
        controller = RolloutController(platform, models, spec.rollout, PIPELINE, log)
        pinned = pin_version(models, name, version)
        result = controller.roll_out(pinned, identity.champion, manifest.decision.reason)
    artifacts.write(Path(outcome), result)
    if run_id := records.run_id():
        record = OutcomeRecord(outcome=result)
        records.write(open_objects(spec.store), records.outcome_key(name, run_id), record)
    log(f"{result.decision}: {result.reason}")
    return version


def _hold_if_rolled_back(models: ModelStore, name: str, version: int, target: Target) -> Outcome | None:
    """Return that a version is held because it was rolled back since; else None."""
    current, entry = models.champion(name), models.rolled_back(name, version)
    if entry is None or (current and current.version == version):
        return None
    command = find_platform_class(target).deploy_command
    return Outcome(
        version=version,
        decision="hold",
        reason=f"version {version} was rolled back at {entry.at} ({entry.reason}); "
        f"`modelyard {command} {name} {version}` brings it back",
    )


def _serving_sections(models: ModelStore, name: str, version: int, current: Json) -> Callable[[int], Json]:
    """Return what gives the section `serving` of a version: this run's as given, another's as its run had it.

    Keys that this modelyard does not know are left out of the latter.
    """

    def section(number: int) -> Json:
        if number == version:
            return current
        recorded = models.manifest(name, number).config.get("serving", {})
        return current | {key: value for key, value in recorded.items() if key in current}

    return section


def _files(parts: list[Path]) -> dict[str, Path]:
    """Return the files of a version by their path inside it; a folder gives all that it holds."""
    files = {}
    for part in parts:
        if part.is_dir():
            inside = (path for path in sorted(part.rglob("*")) if path.is_file())
            files.update({path.relative_to(part).as_posix(): path for path in inside})
        else:
            files[part.name] = part
    return files


def _packages(history: Path) -> dict[str, str]:
    """Return the versions of what trained the model, and of what is installed here to serve it."""
    found = dict(artifacts.read(history, History).packages)
    for name in SERVING_PACKAGES:
        with suppress(PackageNotFoundError):  # on a cluster the server has an image of its own
            found[name] = package_version(name)
    return found
