"""Whether Kubeflow Pipelines tries a step again, which is not what the pipeline says, but its controller.

The controller of workflows lays defaults of its own over every step. As Kubeflow Pipelines 2.17 ships it, a
pod that was lost is replaced, twice at most and also when nobody asked for it, and a step that failed is not
tried again, even when somebody did.
"""

from collections.abc import Iterator
from typing import Any

import yaml

from modelyard.components.errors import ClusterError
from modelyard.pipelines.environments.environment import Environment, Steps

CONTROLLER = "workflow-controller-configmap"
REMEDY = (
    f"Whoever runs Kubeflow Pipelines can change that in the ConfigMap {CONTROLLER}, under workflowDefaults: "
    "templateDefaults.retryStrategy: {limit: '0', retryPolicy: Always}"
)
Json = dict[str, Any]


def notes(environment: Environment) -> Iterator[str]:
    """Yield what is to be known about the retries that an environment asks for."""
    asked = [step for step in Steps.model_fields if environment.resources(step).retries]
    if not asked:
        return
    known, strategy = _seen(environment)
    steps = f"{', '.join(asked)} ask{'s' if len(asked) == 1 else ''} for retries"
    if not known:
        yield (
            f"{steps}, and it could not be seen whether they are given: as Kubeflow Pipelines is shipped, "
            f"a lost pod is replaced, and a step that failed is not tried again. {REMEDY}."
        )
        return
    yield from (f"{steps}, {said}. {REMEDY}." for said in [verdict(strategy)] if said)


def verdict(strategy: Json | None) -> str | None:
    """Return what is wrong with the retries that the controller's defaults make; None when they are as asked.

    Args:
        strategy: the defaults' `retryStrategy`, as Argo Workflows writes it.
    """
    if strategy is None:
        return "but a pod that is lost is not replaced here, only a step that failed is tried again"
    policy, limit = strategy.get("retryPolicy", "OnFailure"), str(strategy.get("limit", "0"))
    if policy == "OnError":
        return "but Kubeflow Pipelines tries no failed step again here, only one whose pod was lost"
    if policy == "OnFailure":
        return "but a pod that is lost is not replaced here, only a step that failed is tried again"
    if limit != "0":
        return (
            f"and Kubeflow Pipelines tries every other step again here, too, {limit} times, deploy among them"
        )
    return None


def strategy_of(config_map: Json) -> Json | None:
    """Return the `retryStrategy` of the controller's defaults for every step, if it has one."""
    defaults = yaml.safe_load(config_map.get("data", {}).get("workflowDefaults", "")) or {}
    strategy: Json | None = defaults.get("spec", {}).get("templateDefaults", {}).get("retryStrategy")
    return strategy


def _seen(environment: Environment) -> tuple[bool, Json | None]:
    """Return whether the controller's defaults can be read, and what they are."""
    if environment.kfp.endpoint:  # it may be on another cluster than the one that KUBECONFIG names
        return False, None
    from modelyard.components.kubernetes.cluster import connect  # nearly half a second

    try:
        found = connect(environment.kfp.namespace).get("ConfigMap", CONTROLLER)
    except ClusterError:
        return False, None
    return found is not None, strategy_of(found) if found else None
