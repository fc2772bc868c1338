"""Where to look, and what is known of it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from modelyard.components import lifeline
from modelyard.components.errors import BackendError
from modelyard.components.kubernetes.cluster import Cluster, connect
from modelyard.pipelines.config.cleanup import Retention
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.config.schedule import seconds
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners.kfp import records

Json = dict[str, Any]
STEPS = "app.kubernetes.io/component=step,modelyard.dev/run"
PROBES = "app.kubernetes.io/component=probe"
MANAGED = "app.kubernetes.io/part-of=modelyard"
SKEW = 300.0  # seconds by which clocks may differ, with what a request may take
ZONES = 86400.0  # seconds by which the names of two machines' runs may differ
OVER = ("Succeeded", "Failed")


@dataclass
class Place:
    """An environment with a configuration.

    Attributes:
        config: names the model and the policy.
        environment: the environment.
        home: this machine's runs and cache.
        now: epoch seconds.
        backend: Kubeflow Pipelines, if there is one.
        blind: why it is not known what uses the store; empty when it is known.
    """

    config: Config
    environment: Environment
    home: Path
    now: float
    backend: Any = None
    blind: str = ""
    _clusters: dict[str, Cluster] = field(default_factory=dict)

    @property
    def policy(self) -> Retention:
        """What is kept."""
        return self.config.retention

    @property
    def oldest(self) -> float:
        """The time after which everything is kept, in epoch seconds."""
        return self.now - seconds(self.policy.younger_than, "retention.younger_than")

    @property
    def remote(self) -> bool:
        """Say whether it is a cluster."""
        return self.environment.kind == "kubernetes"

    def look(self, endpoint: str | None) -> None:
        """Find Kubeflow Pipelines; without an answer it is not known what it uses, as with a bucket alone.

        Raises:
            ClusterError: there is no cluster.
        """
        from modelyard.pipelines.runners.kfp import client
        from modelyard.pipelines.runners.kfp.endpoint import SERVICE, find_endpoint

        if not self.remote:
            if self.config.store.url.startswith("gs://"):
                self.blind = f"clusters may use {self.config.store.url}, and -e names the one to look at"
            return
        found = find_endpoint(self.environment, endpoint)
        if found.tunnel and self.cluster(found.tunnel).get("Service", SERVICE) is None:
            return  # it is not installed
        try:
            self.backend = client.connect(self.environment, endpoint)
        except BackendError as error:
            self.blind = str(error)

    @cached_property
    def server_runs(self) -> list[Any]:
        """The runs on Kubeflow Pipelines as they were when they were first asked for, the latest first."""
        return list(records.runs(self.backend, **self.backend.scoped())) if self.backend else []

    def cluster(self, namespace: str) -> Cluster:
        """Return a namespace of the cluster."""
        if namespace not in self._clusters:
            self._clusters[namespace] = connect(namespace)
        return self._clusters[namespace]

    def pods(self) -> list[Json]:
        """Return the pods of steps that `modelyard run` started; none on this machine."""
        return self.cluster(self.environment.runs.namespace).list("Pod", STEPS) if self.remote else []

    def probes(self) -> list[Json]:
        """Return the pods in which `modelyard plan` probes; none on this machine."""
        return self.cluster(self.environment.runs.namespace).list("Pod", PROBES) if self.remote else []

    def alive(self) -> Iterator[str]:
        """Yield the names of the runs that live: here, and those whose pods are at work."""
        for run in (self.home / "runs").glob("*/lifeline"):
            if lifeline.held(run):
                yield run.parent.name
        for pod in self.pods():
            name = pod["metadata"]["labels"]["modelyard.dev/run"]
            if pod["status"].get("phase") not in OVER and not self.dead(name):
                yield name

    def alive_since_before(self, moment: float) -> bool:
        """Say whether a run lives that began before a moment, given in epoch seconds."""
        return any(began(name) < moment + ZONES for name in self.alive())

    def dead(self, run: str) -> bool:
        """Say whether a run is one of this machine that ended or was killed."""
        folder = self.home / "runs" / run
        return folder.is_dir() and not lifeline.held(folder / "lifeline")


def began(run: str) -> float:
    """Return when a run of `modelyard run` began, in epoch seconds, by its name."""
    return datetime.strptime(run[:15], "%Y%m%d-%H%M%S").timestamp()
