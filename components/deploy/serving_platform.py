"""A model on a cluster: its store, its two Deployments, its Service, its pods.

The champion pointer in the store is the truth, and tracks.py brings stable to it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from modelyard.components.deploy import objects
from modelyard.components.deploy.objects import Track
from modelyard.components.deploy.settings import PORT, Rollout, Target
from modelyard.components.deploy.verification import DirectTarget, HttpTarget, ProxiedTarget
from modelyard.components.errors import ConfigError, UnreachableError
from modelyard.components.kubernetes import Json
from modelyard.components.kubernetes.cluster import Cluster, retry_on_conflict
from modelyard.components.kubernetes.pod_problem import is_ready
from modelyard.components.store.models import ModelStore
from modelyard.components.store.records import Champion

MANAGER = "modelyard-deploy"
STORE_PAUSE = 2.0
ENDED = ("Failed", "Succeeded")  # an evicted pod stays as such beside the one that replaced it

T = TypeVar("T")


@dataclass
class ModelDeployment:
    """What serves a model on a cluster, to look at and to take a candidate away.

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
        found = self.cluster.list_objects("Pod", objects.selector(self.name, track, version))
        return [
            pod
            for pod in found
            if "deletionTimestamp" not in pod["metadata"] and pod["status"].get("phase") not in ENDED
        ]

    def ready_pods(self, track: Track, version: int | None = None) -> list[Json]:
        """Return the pods of a track, or those of one version, that take requests."""
        return [pod for pod in self.pods(track, version) if is_ready(pod)]

    def service(self) -> Json | None:
        """Return the Service, or None."""
        return self.cluster.get("Service", self.name)

    def route(self, observed: Json | None = None, *, canary: bool, token: str = "") -> bool:
        """Let the Service select stable alone, or the candidate as well; mark it with a rollout's token.

        Nothing is written, and False returned, if the Service is not as observed any more.
        """
        desired = objects.service(self.name, self.cluster.namespace, canary, token)
        return self.cluster.apply(_only_over(desired, observed), MANAGER) is not None


@dataclass
class ServingPlatform(ModelDeployment):
    """What serves a model on a cluster, with what its servers are made of.

    Args:
        store: `store` section as JSON, as pods reach it.
        serving: gives the section `serving` with which a version is served.
        rollout: the thresholds.
        target: where and with what servers run.
        log: takes each sentence about the progress.
        now: the monotonic clock.
        sleep: waits so many seconds of it.
    """

    store: str
    serving: Callable[[int], Json]
    rollout: Rollout
    target: Target
    log: Callable[[str], None]
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def pod_target(self, pod: Json) -> HttpTarget:
        """Return where a pod answers requests."""
        if not self.cluster.inside:
            return ProxiedTarget(self.cluster, "Pod", pod["metadata"]["name"])
        ip = pod["status"]["podIP"]
        return DirectTarget(f"http://[{ip}]:{PORT}" if ":" in ip else f"http://{ip}:{PORT}")

    def service_target(self) -> HttpTarget:
        """Return where the Service answers requests."""
        if not self.cluster.inside:
            return ProxiedTarget(self.cluster, "Service", self.name)
        return DirectTarget(f"http://{self.name}.{self.cluster.namespace}:{PORT}")

    def apply_stable(self, version: int, digest: str, like: Json | None = None) -> Json:
        """Write stable's Deployment; its replicas stay with whoever scaled it since it was created.

        Its pods are those of the Deployment `like`, down to the image, or else as the target says.
        """

        def write() -> Json | None:
            desired, observed = self._desired("stable", version, digest), self.deployment("stable")
            if like is not None:
                desired["spec"]["template"] = like["spec"]["template"]
            if observed is None or _owns_replicas(observed):
                desired["spec"]["replicas"] = self.target.replicas
            return self.cluster.apply(_only_over(desired, observed), MANAGER)

        return retry_on_conflict(f"Deployment {self.name}-stable", write)

    def apply_candidate(self, version: int, digest: str, token: str, observed: Json | None) -> Json | None:
        """Write the candidate's Deployment over the observed one; None when that changed meanwhile."""
        desired = self._desired("candidate", version, digest, token)
        stable, share = self.deployment("stable"), self.rollout.canary_share
        beside = stable["spec"].get("replicas", 1) if stable else 1
        desired["spec"]["replicas"] = max(1, round(beside * share / (1 - share)))
        return self.cluster.apply(_only_over(desired, observed), MANAGER)

    def champion(self) -> Champion | None:
        """Return the champion pointer, however long the store needs (`rollout.store_timeout`)."""
        return self.retry_store(lambda: self.models.champion(self.name))

    def retry_store(self, action: Callable[[], T]) -> T:
        """Return what `action` returns; it is repeated while the store does not answer.

        Raises:
            UnreachableError: it did not answer for `rollout.store_timeout` seconds.
        """
        deadline, logged = self.now() + self.rollout.store_timeout, False
        while True:
            try:
                return action()
            except UnreachableError as error:
                if self.now() > deadline:
                    raise
                if not logged:
                    self.log(f"waiting up to {self.rollout.store_timeout:g} s for the model store: {error}")
                logged = True
            self.sleep(STORE_PAUSE)

    def _desired(self, track: Track, version: int, digest: str, token: str | None = None) -> Json:
        return objects.deployment(
            self.name,
            track,
            version,
            digest,
            target=self.target,
            rollout=self.rollout,
            store=self.store,
            serving=self.retry_store(lambda: self.serving(version)),
            token=token,
        )


def _only_over(desired: Json, observed: Json | None) -> Json:
    """Let an object be written only if the present one is still as observed."""
    if observed is not None:
        desired["metadata"]["resourceVersion"] = observed["metadata"]["resourceVersion"]
    return desired


def _owns_replicas(deployment: Json) -> bool:
    """Return whether only deploy has set the number of replicas since."""
    return any(
        entry["manager"] == MANAGER and "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {})
        for entry in deployment["metadata"].get("managedFields", [])
    )
