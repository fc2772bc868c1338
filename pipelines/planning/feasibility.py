"""Refuse a run that cannot succeed: a step fits on no node, or its plan has an error or exceeds a limit."""

from collections.abc import Sequence
from pathlib import Path

from modelyard.components.errors import ClusterError, PlanError
from modelyard.components.kubernetes import Json
from modelyard.components.kubernetes.cluster import connect
from modelyard.components.kubernetes.scheduling import explain_impossible
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.environments.environment import Environment, StepResources
from modelyard.pipelines.planning.plan import compute_plan_key, find_exceeded_limits, load_plan
from modelyard.pipelines.steps import STEPS

AUTOSCALER_LABELS = {  # labels of nodes that an autoscaler may add
    "cloud.google.com/gke-nodepool",
    "eks.amazonaws.com/nodegroup",
    "karpenter.sh/nodepool",
    "kubernetes.azure.com/agentpool",
}


def check_feasibility(
    config: Config, environment: Environment, name: str, home: Path, budget: float | None = None
) -> None:
    """Raise if a run cannot succeed.

    Nodes are checked if the cluster responds and has no autoscaler. The last plan of the configuration is
    checked with the budget and the current timeouts of the environment.

    Args:
        config: the configuration of `uploads.prepare_uploads`.
        environment: where the run would execute.
        name: the environment's name.
        home: the folder of the plans.
        budget: in USD.

    Raises:
        PlanError: lists the reasons with remedies.
    """
    reasons = list(find_unschedulable_steps(environment)) if environment.on_cluster else []
    if plan := load_plan(home, compute_plan_key(config, environment)):
        errors = (*plan.errors, *find_exceeded_limits(plan, environment, config.training, budget))
        reasons += [f"{error} (plan of {plan.created[:10]})" for error in errors]
    elif budget is not None:
        reasons.append(
            f"--budget {budget:g} USD cannot be checked, because this run was not planned: run `modelyard "
            f"plan --probe -e {name}`"
        )
    if reasons:
        raise PlanError(f"The run was not started: {'; '.join(reasons)}. `--anyway` skips this check.")


def find_unschedulable_steps(environment: Environment) -> Sequence[str]:
    """Return a message for each step that does not fit on any node of the cluster, even an empty one."""
    try:
        nodes = connect(environment.runs.namespace).nodes
    except ClusterError:
        return ()  # the user may have access to Kubeflow Pipelines only
    if any(AUTOSCALER_LABELS & node["metadata"].get("labels", {}).keys() for node in nodes):
        return ()
    messages = (explain_impossible(_create_pod(step, environment.resources(step)), nodes) for step in STEPS)
    return [message for message in messages if message]


def _create_pod(step: str, resources: StepResources) -> Json:
    """Return the part of a step's pod that the scheduler reads."""
    requests = {"cpu": resources.cpu, "memory": resources.memory}
    if resources.accelerator:
        requests[resources.accelerator.resource] = str(resources.accelerator.count)
    requests = {name: amount for name, amount in requests.items() if amount}
    return {
        "metadata": {"name": step},
        "spec": {
            "nodeSelector": resources.all_node_labels(),
            "tolerations": [
                toleration.model_dump(exclude_none=True) for toleration in resources.all_tolerations()
            ],
            "containers": [{"resources": {"requests": requests}}],
        },
    }
