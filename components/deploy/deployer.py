"""Publish a version and roll it out: on this machine, or on a cluster.

Every part may be killed and started again: the run's fingerprint finds the version that was begun, the
manifest makes it whole, and the pointer moves by compare-and-swap.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path

from modelyard.components import artifacts
from modelyard.components.artifacts import Decision, History, Manifest, Metrics, Outcome, Signature
from modelyard.components.deploy.local import running_server
from modelyard.components.deploy.settings import Rollout, Target
from modelyard.components.deploy.verification import DirectTarget, overtaken, pin_version, replay
from modelyard.components.errors import ConflictError, DeployError
from modelyard.components.kubernetes import Json
from modelyard.components.kubernetes.cluster import connect
from modelyard.components.store.models import ModelStore, open_store
from modelyard.components.store.settings import Store

PACKAGES = ("modelyard", "numpy", "onnxruntime")
BY = "pipeline"


def deploy(
    model: str,
    history: str,
    evaluation: str,
    report: str,
    name: str,
    run: str,
    champion: int,
    data: str,
    recipe_sha256: str,
    code_sha256: str,
    config: str,
    serving: str,
    store: str,
    rollout: str,
    target: str,
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
    models = open_store(Store.of(store))
    version = models.reserve(name, run)
    parts = [Path(model), Path(evaluation) / "golden.json", Path(history) / "history.json"]
    files = _files([*parts, Path(report)])
    manifest = Manifest(
        model=name,
        version=version,
        run=run,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        data=data,
        recipe_sha256=recipe_sha256,
        code_sha256=code_sha256,
        config=json.loads(config),
        files={path: artifacts.sha256(file) for path, file in files.items()},
        signature=artifacts.read(Path(model) / "signature.json", Signature),
        metrics=artifacts.read(Path(evaluation) / "metrics.json", Metrics),
        decision=artifacts.read(Path(evaluation) / "decision.json", Decision),
        packages=_packages(Path(history) / "history.json"),
    )
    models.publish(name, version, files, manifest)
    _log(f"published version {version} of {name}")
    result = _promote(models, name, version, champion, store, serving, rollout, Target.of(target))
    artifacts.write(Path(outcome), result)
    _log(f"{result.decision}: {result.reason}")
    return version


def _promote(
    models: ModelStore,
    name: str,
    version: int,
    champion: int,
    store: str,
    serving: str,
    rollout: str,
    target: Target,
) -> Outcome:
    """Make `version` the champion, unless it is already or another decision was made since."""
    recorded = models.manifest(name, version).decision
    current = models.champion(name)
    is_champion, is_local = current is not None and current.version == version, target.kind == "local"
    if is_champion and is_local:
        return Outcome(version=version, decision=recorded.decision, reason=recorded.reason)
    if not is_champion and (entry := models.rolled_back(name, version)):
        again = f"models promote {name} {version}" if is_local else f"deploy {name} {version} -e ENV"
        return Outcome(
            version=version,
            decision="hold",
            reason=f"version {version} was rolled back at {entry.at} ({entry.reason}); "
            f"`modelyard {again}` brings it back",
        )
    pinned, thresholds, reason = pin_version(models, name, version), Rollout.of(rollout), recorded.reason
    if is_local:
        try:
            with running_server(name, store, serving, version) as url:
                replay(DirectTarget(url), name, pinned, thresholds.golden_tolerance)
        except DeployError as error:
            raise DeployError(f"{error} Version {version} was not promoted.") from error
        try:
            models.promote(name, version, reason=reason, by=BY, expected=champion)
        except ConflictError as error:
            return overtaken(version, champion, str(error))
        return Outcome(version=version, decision="promote", reason=reason)
    from modelyard.components.deploy.rollout import roll_out  # a laptop needs none of it
    from modelyard.components.deploy.serving_platform import ServingPlatform

    platform = ServingPlatform(
        name=name,
        cluster=connect(target.namespace),
        models=models,
        store=store,
        serving=_sections(models, name, version, json.loads(serving)),
        rollout=thresholds,
        target=target,
        log=_log,
    )
    return roll_out(platform, pinned, champion, reason, BY)


def _sections(models: ModelStore, name: str, version: int, given: Json) -> Callable[[int], Json]:
    """Return what gives the section `serving` of a version: this run's as given, another's as its run had it.

    Keys that this modelyard does not know are left out of the latter.
    """

    def section(number: int) -> Json:
        if number == version:
            return given
        recorded = models.manifest(name, number).config.get("serving", {})
        return given | {key: value for key, value in recorded.items() if key in given}

    return section


def _files(parts: list[Path]) -> dict[str, Path]:
    """Return the files of a version by their path inside it; a folder gives all that it holds."""
    files = {}
    for part in parts:
        if part.is_dir():
            inside = (path for path in sorted(part.rglob("*")) if path.is_file())
            files.update({path.relative_to(part).as_posix(): path for path in inside})
        else:
            files["report.html" if part.name == "report" else part.name] = part
    return files


def _packages(history: Path) -> dict[str, str]:
    """Return the versions of what trained the model, and of what is installed here to serve it."""
    found = dict(artifacts.read(history, History).packages)
    for name in PACKAGES:
        with suppress(PackageNotFoundError):  # on a cluster the server has an image of its own
            found[name] = package_version(name)
    return found


def _log(sentence: str) -> None:
    print(sentence, flush=True)  # noqa: T201 - the step's log
