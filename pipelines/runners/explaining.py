"""How a run of this machine or on Kubeflow Pipelines ended or fares, for whoever asks after its exit task."""

from pathlib import Path
from typing import TYPE_CHECKING

from modelyard.components import lifeline
from modelyard.components.artifacts import read
from modelyard.components.errors import DataError, NotFoundError, StuckError
from modelyard.components.explain import here
from modelyard.components.explain.explanation import Explanation, cancelled, failed, running, succeeded
from modelyard.pipelines.runners import runs
from modelyard.pipelines.runners.runs import RunSummary

if TYPE_CHECKING:
    from modelyard.pipelines.environments.environment import Environment


def of_this_machine(base: Path, name: str | None = None) -> Explanation:
    """Return how a run ended that this machine led, by its name; the latest if none is given.

    Args:
        base: the folder of runs and cache.
        name: the run's name.

    Raises:
        NotFoundError: there is no such run.
    """
    known = (path for path in (base / "runs").glob("*") if name in (None, path.name))
    found = sorted(path for path in known if any((path / file).exists() for file in ("run.json", "lifeline")))
    if not found:
        raise NotFoundError(f"There is no run {name or 'yet'} in {base / 'runs'}. `modelyard run` makes one.")
    run = found[-1]
    if not (run / "run.json").exists():
        return _unfinished(run)
    summary = runs.find(base, run.name)
    if failure := summary.failure:
        how = cancelled if summary.state == "cancelled" else failed
        return how(run.name, summary.model, failure.step, failure.message)
    return succeeded(run.name, summary.model, f"{summary.decision}: {summary.reason}")


def on_pipelines(name: str, environment: "Environment", endpoint: str | None) -> Explanation:
    """Return how a run ended or fares on Kubeflow Pipelines, also when its pods are gone.

    Args:
        name: the run's name, or its id.
        environment: where it ran.
        endpoint: the address of Kubeflow Pipelines on the command line.

    Raises:
        NotFoundError: there is no such run.
        BackendError: Kubeflow Pipelines does not answer.
    """
    from modelyard.components.explain import there
    from modelyard.pipelines.runners.kfp import client, records
    from modelyard.pipelines.runners.kfp.kept import Kept, cluster_of

    backend = client.connect(environment, endpoint)
    run = records.find(backend, name)
    kept = Kept(backend, run.run_id, cluster_of(backend.namespace))
    parameters = (run.runtime_config.parameters if run.runtime_config else None) or {}
    found = there.explain(run.display_name, parameters.get("name"), kept)
    return _stuck(found) or found if found.state == "cancelled" else found


def _stuck(found: Explanation) -> Explanation | None:
    """Return why a run was cancelled that was followed from here and stuck: then no pod says it any more."""
    try:
        failure = read(runs.of_pipelines(found.run) / "run.json", RunSummary).failure
    except DataError:  # nobody followed it from here
        return None
    if failure is None or failure.kind != StuckError.__name__:
        return None
    return cancelled(found.run, found.model, failure.step, failure.message)


def _unfinished(run: Path) -> Explanation:
    step = here.last_step(run)
    if lifeline.held(run / "lifeline"):
        return running(run.name, None, step, None)
    why = "it was killed, or the machine went down. Run it again: what is done is cached."
    return cancelled(run.name, None, step, why)
