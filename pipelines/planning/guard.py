"""Refuse a run that cannot succeed: a step fits on no node, or the plan has a problem or exceeds a limit."""

from collections.abc import Sequence
from pathlib import Path

from modelyard.components.errors import ClusterError, PlanError
from modelyard.components.kubernetes import Json
from modelyard.components.kubernetes.cluster import connect
from modelyard.components.kubernetes.scheduling import explain_impossible
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.environments.environment import Environment, StepResources
from modelyard.pipelines.planning.plan import exceeded, load_plan, plan_key
from modelyard.pipelines.steps import STEPS

AUTOSCALER_LABELS = {  # labels of nodes that an autoscaler may add
    "cloud.google.com/gke-nodepool",
    "eks.amazonaws.com/nodegroup",
    "karpenter.sh/nodepool",
    "kubernetes.azure.com/agentpool",
}


def guard(
    config: Config, environment: Environment, name: str, home: Path, budget: float | None = None
) -> None:
    """Raise unless a run may be started.

    Nodes are checked when the cluster can be reached and no autoscaler could add others. The last plan of the
    configuration is checked against the budget and the environment's times as they are now.

    Args:
        config: the configuration of `uploads.prepare_uploads`.
        environment: where it would run.
        name: the environment's name.
        home: where plans are kept.
        budget: in USD.

    Raises:
        PlanError: names each reason, and what to change.
    """
    reasons = list(unschedulable(environment)) if environment.on_cluster else []
    if plan := load_plan(home, plan_key(config, environment)):
        against = (*plan.problems, *exceeded(plan, environment, config.training, budget))
        reasons += [f"{one} (plan of {plan.created[:10]})" for one in against]
    elif budget is not None:
        reasons.append(
            f"--budget {budget:g} USD cannot be checked, as this run was not planned: use `modelyard plan "
            f"--probe -e {name}`"
        )
    if reasons:
        raise PlanError(f"{'. '.join(reasons)}. `--anyway` starts it nevertheless.")


def unschedulable(environment: Environment) -> Sequence[str]:
    """Return a message for each step that does not fit on any node of the cluster, even an empty one."""
    try:
        nodes = connect(environment.runs.namespace).nodes
    except ClusterError:
        return ()  # the user may have access to Kubeflow Pipelines only
    if any(AUTOSCALER_LABELS & node["metadata"].get("labels", {}).keys() for node in nodes):
        return ()
    found = (explain_impossible(_pod(step, environment.resources(step)), nodes) for step in STEPS)
    return [one for one in found if one]


def _pod(step: str, resources: StepResources) -> Json:
    """Return the part of a step's pod that the scheduler reads."""
    asked = {"cpu": resources.cpu, "memory": resources.memory}
    if resources.accelerator:
        asked[resources.accelerator.resource] = str(resources.accelerator.count)
    requests = {name: amount for name, amount in asked.items() if amount}
    tolerations = [one.model_dump(exclude_none=True) for one in resources.all_tolerations()]
    return {
        "metadata": {"name": step},
        "spec": {
            "nodeSelector": resources.all_node_labels(),
            "tolerations": tolerations,
            "containers": [{"resources": {"requests": requests}}],
        },
    }
