"""Refuses a run before it is started: no node can take a step, or it breaks budget or deadline."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from components.errors import ClusterError, PlanError
from components.kubernetes.cluster import connect
from components.kubernetes.scheduling import impossible
from pipelines.config import Config
from pipelines.environment_settings import Environment
from pipelines.plan import residuals
from pipelines.plan.plan import Wishes
from pipelines.plan.verdict import limits
from pipelines.step_resources import StepResources
from pipelines.train_to_serve import STEPS

Json = dict[str, Any]
SCALES = "cloud.google.com/gke-nodepool"


def guard(
    config: Config,
    environment: Environment,
    name: str,
    home: Path,
    budget: float | None = None,
    deadline: float | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Raise unless a run may be started.

    Nodes are looked at when the cluster lets us, and when no autoscaler of GKE could make others. What the
    last plan of this configuration said holds; one is made when there is none and a limit is asked for.

    Args:
        config: the configuration.
        environment: where it would run.
        name: the environment's name.
        home: where plans are kept.
        budget: in USD.
        deadline: in hours.
        say: takes a few words about what is being done.

    Raises:
        PlanError: names each reason, and what to change.
    """
    reasons = list(unschedulable(environment)) if environment.kind == "kubernetes" else []
    kept = residuals.planned(home, residuals.key(config, environment))
    wishes = Wishes(budget=budget, deadline=deadline)
    if kept and kept.whole.value is not None:
        reasons += [*kept.refusals, *limits(kept.whole, kept.money, wishes)]
    elif budget is not None or deadline is not None:
        from pipelines.plan.planning import make

        reasons += make(config, environment, name, wishes, home, say).refusals
    if reasons:
        raise PlanError(f"{'. '.join(reasons)}. `--anyway` starts it all the same.")


def unschedulable(environment: Environment) -> Sequence[str]:
    """Return a sentence for each step that no node of the cluster could take, even an empty one."""
    try:
        nodes = connect(environment.runs.namespace).nodes
    except ClusterError:
        return ()  # whoever submits may reach Kubeflow Pipelines alone
    if any(SCALES in node["metadata"].get("labels", {}) for node in nodes):
        return ()
    found = (impossible(_pod(step, environment.resources(step)), nodes) for step in STEPS)
    return [one for one in found if one]


def _pod(step: str, resources: StepResources) -> Json:
    """Return as much of a step's pod as the scheduler looks at."""
    asked = {"cpu": resources.cpu, "memory": resources.memory}
    if resources.accelerator:
        asked[resources.accelerator.resource] = str(resources.accelerator.count)
    requests = {name: amount for name, amount in asked.items() if amount}
    tolerations = [one.model_dump(exclude_none=True) for one in resources.tolerated()]
    return {
        "metadata": {"name": step},
        "spec": {
            "nodeSelector": resources.selector(),
            "tolerations": tolerations,
            "containers": [{"resources": {"requests": requests}}],
        },
    }
