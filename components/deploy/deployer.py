"""Publish a version and roll it out on a serving platform.

Each part may be killed and run again: the run's fingerprint identifies the version, the manifest is written
last, and the champion pointer moves by compare-and-swap.
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
from modelyard.components.store.records import now, write_record
from modelyard.components.store.storage import open_objects

HISTORY = "history.json"
EVALUATION_FILES = ("golden.json", "report.html", "training_hashes.npy")
SERVING_PACKAGES = ("modelyard", "numpy", "onnxruntime")
PIPELINE = "pipeline"  # who promoted a version, in the history


def deploy(
    model: str, history: str, evaluation: str, spec: DeploySpec, identity: Identity, outcome: str
) -> int:
    """Publish, verify and promote a version; the arguments are those of the component `deploy`.

    Returns:
        The version; the same run always gets the same one.

    Raises:
        DeployError: a server of the version does not run, or fails verification or canary analysis.
        ClusterError: the cluster refuses a request or does not respond.
        StoreError: the store cannot be reached, read or written.
    """
    models, name = open_store(spec.store), spec.name
    version = models.reserve(name, identity.run)
    files = _list_files(Path(model), Path(history), Path(evaluation))
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
        metrics=artifacts.read(Path(evaluation) / "metrics.json", Metrics),
        decision=artifacts.read(Path(evaluation) / "decision.json", Decision),
        packages=_read_package_versions(files[HISTORY]),
    )
    models.publish(name, version, files, manifest)
    log(f"published version {version} of {name}")
    result = _hold_if_rolled_back(models, name, version, spec.target)
    if result is None:
        sections = _create_section_reader(models, name, version, spec.serving)
        platform = open_platform(
            PlatformConfig(name, models, spec.target, spec.store.to_json(), sections, spec.rollout, log)
        )
        controller = RolloutController(platform, models, spec.rollout, PIPELINE, log)
        pin = pin_version(models, name, version)
        result = controller.roll_out(pin, identity.champion, manifest.decision.reason)
    artifacts.write(Path(outcome), result)
    if run_id := records.run_id():
        record = OutcomeRecord(outcome=result)
        write_record(open_objects(spec.store), records.outcome_key(name, run_id), record)
    log(f"{result.decision}: {result.reason}")
    return version


def _list_files(model: Path, history: Path, evaluation: Path) -> dict[str, Path]:
    """Return the files of a version by their path in it: all of the model, some of evaluate and train."""
    files = {path.relative_to(model).as_posix(): path for path in sorted(model.rglob("*")) if path.is_file()}
    files |= {name: evaluation / name for name in EVALUATION_FILES}
    return files | {HISTORY: history / HISTORY}


def _read_package_versions(history: Path) -> dict[str, str]:
    """Return the versions of the packages that trained the model and, if installed, that serve it."""
    versions = dict(artifacts.read(history, History).packages)
    for package in SERVING_PACKAGES:
        with suppress(PackageNotFoundError):  # on a cluster the server has another image
            versions[package] = package_version(package)
    return versions


def _hold_if_rolled_back(models: ModelStore, name: str, version: int, target: Target) -> Outcome | None:
    """Return the outcome `hold` of a version that was rolled back; None for other versions."""
    champion, entry = models.champion(name), models.find_rollback(name, version)
    if entry is None or (champion and champion.version == version):
        return None
    command = find_platform_class(target).deploy_command
    return Outcome(
        version=version,
        decision="hold",
        reason=f"version {version} was rolled back at {entry.at} ({entry.reason}); "
        f"`modelyard {command} {name} {version}` deploys it",
    )


def _create_section_reader(
    models: ModelStore, name: str, version: int, current: Json
) -> Callable[[int | None], Json]:
    """Return a function that gives the section `serving` of a version.

    For this run's version and for None, it is `current`; for other versions, `current` with the values in
    their manifests.
    """

    def section(number: int | None) -> Json:
        if number is None or number == version:
            return current
        manifest_section = models.manifest(name, number).config.get("serving", {})
        return current | {key: value for key, value in manifest_section.items() if key in current}

    return section
