"""What uses the objects of a store and of this machine: runs, schedules and servers."""

import json
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from modelyard.components import lifeline
from modelyard.components.deploy.platforms.base import ServingPlatform
from modelyard.components.kubernetes.cluster import connect
from modelyard.components.store.models import ModelStore
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners.pods.pod import list_active_runs
from modelyard.pipelines.runners.run_folder import parse_start_time
from modelyard.pipelines.serving.platforms import find_platform

ENDED_RUN = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")  # of Kubeflow Pipelines
CLOCK_SKEW = 300.0  # seconds by which the clocks of two machines may differ
TIME_ZONE_DIFFERENCE = 86400.0  # seconds by which the local times in the names of runs may differ


class Usage:
    """The runs, schedules and servers that may use a model; `home` is the folder of this machine's runs."""

    def __init__(
        self, config: Config, environment: Environment, home: Path, now: float, endpoint: str | None
    ) -> None:
        """Connect to Kubeflow Pipelines if the environment is a cluster; see GarbageCollector."""
        self._config, self._environment, self._home, self._now = config, environment, home, now
        self._backend: Any = self._connect_pipelines(endpoint) if environment.on_cluster else None

    def list_active_local_runs(self) -> Iterator[str]:
        """Yield the names of active runs of this machine."""
        for path in (self._home / "runs").glob("*/lifeline"):
            if lifeline.is_held(path):
                yield path.parent.name

    def list_active_kfp_runs(self) -> Iterator[Any]:
        """Yield the active runs of Kubeflow Pipelines."""
        states = [{"operation": "NOT_EQUALS", "key": "state", "string_value": state} for state in ENDED_RUN]
        if self._backend:
            request = self._backend.runs.run_service_list_runs
            yield from self._list_items(request, "runs", filter=json.dumps({"predicates": states}))

    def list_schedules(self) -> Iterator[Any]:
        """Yield the recurring runs of Kubeflow Pipelines."""
        if self._backend:
            request = self._backend.recurring_runs.recurring_run_service_list_recurring_runs
            yield from self._list_items(request, "recurring_runs")

    def find_oldest_start(self) -> float:
        """Return the earliest time, in epoch seconds, at which an active run may have started.

        A retried run compares with the champion at its first start.
        """
        pods = list_active_runs(self._environment) if self._environment.on_cluster else ()
        names = (*self.list_active_local_runs(), *pods)
        times = [self._now - self._environment.active_deadline]
        times += [parse_start_time(name) - TIME_ZONE_DIFFERENCE for name in names]
        times += [run.created_at.timestamp() - CLOCK_SKEW for run in self.list_active_kfp_runs()]
        return min(times)

    def find_served_versions(self, models: ModelStore) -> dict[int, str]:
        """Return where versions are served: in this environment, and in others as recorded in the store."""
        platform, versions = self._platform, dict[int, str]()
        for record in models.served_versions(self._config.name):
            if record.platform != platform.id:
                reason = f"served in {record.location} of another environment, as recorded at {record.at}"
                versions |= dict.fromkeys(record.versions, reason)
        return versions | dict.fromkeys(platform.status().loaded_versions, f"served in {platform.location}")

    def _connect_pipelines(self, endpoint: str | None) -> Any:
        """Return the API of Kubeflow Pipelines; None if the cluster does not have it."""
        from modelyard.pipelines.runners.kfp import client

        url = client.find_endpoint(self._environment, endpoint)
        if url.namespace and connect(url.namespace).get("Service", client.SERVICE) is None:
            return None
        return client.connect(self._environment, endpoint)

    def _list_items(self, request: Callable[..., Any], items: str, **arguments: Any) -> Iterator[Any]:
        """Yield all items of a list of Kubeflow Pipelines."""
        from modelyard.pipelines.runners.kfp.client import list_items  # takes long to import

        return list_items(request, items, **arguments, **self._backend.scope_arguments())

    @cached_property
    def _platform(self) -> ServingPlatform:
        return find_platform(self._config.name, self._environment, self._config.store)
