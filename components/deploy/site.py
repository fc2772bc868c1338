"""A model's place on a cluster: its store, its two Deployments, its Service, its pods.

The champion pointer in the store is the truth, and `settle` (stable.py) brings stable to it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from modelyard.components.deploy import objects
from modelyard.components.deploy.objects import Track
from modelyard.components.deploy.peer import Direct, Peer, Proxied
from modelyard.components.deploy.settings import Rollout, Target
from modelyard.components.errors import ConfigError, UnreachableError
from modelyard.components.kubernetes import pod_problem
from modelyard.components.kubernetes.cluster import Cluster, retry_on_conflict
from modelyard.components.kubernetes.pod_problem import Json
from modelyard.components.store.models import ModelStore
from modelyard.components.store.records import Champion

MANAGER = "modelyard-deploy"
STORE_PAUSE = 2.0
ENDED = ("Failed", "Succeeded")  # an evicted pod stays as such beside the one that replaced it

T = TypeVar("T")


def say(sentence: str) -> None:
    """Print a sentence about how it goes, into the step's log."""
    print(sentence, flush=True)  # noqa: T201


@dataclass
class Place:
    """A model on a cluster, as far as it is looked at.

    Args:
        name: the model's name.
        cluster: the namespace of the servers.
        models: the store, as this process reaches it.

    Raises:
        ConfigError: Kubernetes has no such names.
    """

    name: str
    cluster: Cluster
    models: ModelStore

    def __post_init__(self) -> None:
        if not self.name[:1].isalpha():
            raise ConfigError(
                f"{self.name!r} cannot be served on Kubernetes, where a Service's name begins with a letter: "
                "give the model such a name."
            )

    def deployment(self, track: Track) -> Json | None:
        """Return the Deployment of a track, or None."""
        return self.cluster.get("Deployment", f"{self.name}-{track}")

    def pods(self, track: Track, version: int | None = None) -> list[Json]:
        """Return the pods of a track, or those of one version, that neither ended nor are being deleted."""
        found = self.cluster.list("Pod", objects.selector(self.name, track, version))
        return [
            pod
            for pod in found
            if "deletionTimestamp" not in pod["metadata"] and pod["status"].get("phase") not in ENDED
        ]

    def ready_pods(self, track: Track, version: int | None = None) -> list[Json]:
        """Return the pods of a track, or those of one version, that take requests."""
        return [pod for pod in self.pods(track, version) if pod_problem.is_ready(pod)]

    def service(self) -> Json | None:
        """Return the Service, or None."""
        return self.cluster.get("Service", self.name)

    def lead(self, seen: Json | None = None, *, canary: bool, attempt: str = "") -> bool:
        """Let the Service lead to stable alone, or to the candidate as well.

        Args:
            seen: the Service that must not have changed since; whatever it is when None.
            canary: whether to the candidate as well.
            attempt: the rollout that wants it so.

        Returns:
            Whether it was not changed meanwhile.
        """
        wanted = objects.service(self.name, self.cluster.namespace, canary, attempt)
        if seen is not None:
            wanted["metadata"]["resourceVersion"] = seen["metadata"]["resourceVersion"]
        return self.cluster.apply(wanted, MANAGER) is not None


@dataclass
class Site(Place):
    """A model on a cluster, with what its servers are made of.

    Args:
        store: `store` section as JSON, as pods reach it.
        serving: gives the section `serving` with which a version is served.
        rollout: the thresholds.
        target: where and with what servers run.
        say: takes each sentence about how it goes.
    """

    store: str
    serving: Callable[[int], Json]
    rollout: Rollout
    target: Target
    say: Callable[[str], None]

    def peer(self, pod: Json) -> Peer:
        """Return a pod as one who answers requests."""
        if not self.cluster.inside:
            return Proxied(self.cluster, "Pod", pod["metadata"]["name"])
        address = pod["status"]["podIP"]
        return Direct(
            f"http://[{address}]:{objects.PORT}" if ":" in address else f"http://{address}:{objects.PORT}"
        )

    def front(self) -> Peer:
        """Return the Service as one who answers requests."""
        if not self.cluster.inside:
            return Proxied(self.cluster, "Service", self.name)
        return Direct(f"http://{self.name}.{self.cluster.namespace}:{objects.PORT}")

    def put_stable(self, version: int, digest: str, like: Json | None = None) -> Json:
        """Write stable's Deployment; its replicas stay with whoever scaled it since it was made.

        Args:
            version: what it serves.
            digest: of the version's manifest.
            like: a Deployment whose pods it gets, down to the image; as the target says when None.
        """

        def write() -> Json | None:
            wanted, seen = self._wanted("stable", version, digest), self.deployment("stable")
            if like is not None:
                wanted["spec"]["template"] = like["spec"]["template"]
            if seen is None or _owns_replicas(seen):
                wanted["spec"]["replicas"] = self.target.replicas
            if seen is not None:
                wanted["metadata"]["resourceVersion"] = seen["metadata"]["resourceVersion"]
            return self.cluster.apply(wanted, MANAGER)

        return retry_on_conflict(f"Deployment {self.name}-stable", write)

    def put_candidate(self, version: int, digest: str, attempt: str, seen: Json | None) -> Json | None:
        """Write the candidate's Deployment over the one that was seen; None when it changed meanwhile."""
        wanted = self._wanted("candidate", version, digest, attempt)
        wanted["spec"]["replicas"] = self._canary_replicas()
        if seen is not None:
            wanted["metadata"]["resourceVersion"] = seen["metadata"]["resourceVersion"]
        return self.cluster.apply(wanted, MANAGER)

    def champion(self) -> Champion | None:
        """Return the champion pointer, however long the store needs (`rollout.store_timeout`)."""
        return self.patiently(lambda: self.models.champion(self.name))

    def patiently(self, action: Callable[[], T]) -> T:
        """Return what `action` returns; a store that does not answer is asked again for a while.

        Raises:
            UnreachableError: it did not answer for `rollout.store_timeout` seconds.
        """
        deadline, said = time.monotonic() + self.rollout.store_timeout, False
        while True:
            try:
                return action()
            except UnreachableError as error:
                if time.monotonic() > deadline:
                    raise
                if not said:
                    self.say(f"waiting up to {self.rollout.store_timeout:g} s for the model store: {error}")
                said = True
            time.sleep(STORE_PAUSE)

    def _wanted(self, track: Track, version: int, digest: str, attempt: str | None = None) -> Json:
        return objects.deployment(
            self.name,
            track,
            version,
            digest,
            target=self.target,
            rollout=self.rollout,
            store=self.store,
            serving=self.patiently(lambda: self.serving(version)),
            attempt=attempt,
        )

    def _canary_replicas(self) -> int:
        """Return how many candidates get the wanted share of the requests beside stable's pods."""
        stable = self.deployment("stable")
        beside = stable["spec"].get("replicas", 1) if stable else 1
        return max(1, round(beside * self.rollout.canary_share / (1 - self.rollout.canary_share)))


def _owns_replicas(deployment: Json) -> bool:
    """Say whether nobody but deploy set the number of replicas since."""
    return any(
        entry["manager"] == MANAGER and "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {})
        for entry in deployment["metadata"].get("managedFields", [])
    )
