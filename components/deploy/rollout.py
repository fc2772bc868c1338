"""Publish a version, verify it in a real server, make it the champion.

Every part may be killed and started again: the run's fingerprint finds the version that was begun, the
manifest makes it whole, and the pointer moves by compare-and-swap.
"""

import json
from datetime import UTC, datetime
from importlib.metadata import version as package_version
from pathlib import Path

from components import artifacts
from components.artifacts import Decision, Golden, History, Manifest, Metrics, Outcome, Signature
from components.deploy import golden, server
from components.errors import ConflictError
from components.store.models import ModelStore, open_store
from components.store.settings import Store

PACKAGES = ("modelyard", "numpy", "onnxruntime")


def deploy(
    model: str,
    history: str,
    evaluation: str,
    report: str,
    name: str,
    run: str,
    champion: int,
    data: str,
    code: str,
    config: str,
    serving: str,
    store: str,
    rollout: str,  # noqa: ARG001 - for a cluster
    target: str,  # noqa: ARG001
    outcome: str,
) -> int:
    """Publish, verify and promote; the arguments are those of the component `deploy`.

    Returns:
        The version, which is the same whenever the same run is deployed.

    Raises:
        DeployError: the server does not start, or does not answer as evaluate saw.
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
        code=code,
        config=json.loads(config),
        files={path: artifacts.sha256(file) for path, file in files.items()},
        signature=artifacts.read(Path(model) / "signature.json", Signature),
        metrics=artifacts.read(Path(evaluation) / "metrics.json", Metrics),
        decision=artifacts.read(Path(evaluation) / "decision.json", Decision),
        packages=_packages(Path(history) / "history.json"),
    )
    models.publish(name, version, files, manifest)
    print(f"published version {version} of {name}")  # noqa: T201 - the step's log
    result = _promote(models, name, version, champion, store, serving, Path(evaluation) / "golden.json")
    artifacts.write(Path(outcome), result)
    print(f"{result.decision}: {result.reason}")  # noqa: T201
    return version


def _promote(
    models: ModelStore, name: str, version: int, champion: int, store: str, serving: str, requests: Path
) -> Outcome:
    """Make `version` the champion, unless it is already or somebody has decided otherwise."""
    recorded = models.manifest(name, version).decision
    current = models.champion(name)
    if current and current.version == version:
        return Outcome(version=version, decision=recorded.decision, reason=recorded.reason)
    if entry := models.rolled_back(name, version):
        return Outcome(
            version=version,
            decision="hold",
            reason=f"version {version} was rolled back at {entry.at} ({entry.reason}); "
            f"`modelyard models promote {name} {version}` brings it back",
        )
    with server.running(name, store, serving, version) as url:
        golden.replay(url, name, version, artifacts.read(requests, Golden))
    try:
        models.promote(name, version, reason=recorded.reason, by="pipeline", expected=champion)
    except ConflictError as error:
        return Outcome(
            version=version,
            decision="hold",
            reason=f"the champion changed while this run was compared with version {champion} ({error}); "
            "run again to compare with the new one",
        )
    return Outcome(version=version, decision="promote", reason=recorded.reason)


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
    """Return the versions of what trained the model and of what evaluated and serves it."""
    trained = dict(artifacts.read(history, History).packages)
    return trained | {name: package_version(name) for name in PACKAGES}
