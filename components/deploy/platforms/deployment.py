"""Two Deployments and a Service: the canary is a share of the pods, and no CRD is needed.

NAME-stable, NAME-candidate    the tracks; a candidate is annotated with the token of its rollout
NAME                           the Service; it selects stable alone, or the candidate too

A rollout that takes the candidate over marks the Service with its token before it changes the candidate, and
the Service is switched only over what was observed: so no rollout leads clients to the candidate of another
one, which may not be verified.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import ClassVar

from modelyard.components.deploy.platforms import objects
from modelyard.components.deploy.platforms.base import (
    Check,
    PlatformConfig,
    Servers,
    Status,
    Superseded,
    TrafficWindow,
)
from modelyard.components.deploy.platforms.objects import Track
from modelyard.components.deploy.platforms.pods import (
    POLL_SECONDS,
    ModelPods,
    PodTrafficWindow,
    find_refusal,
    is_active,
    is_terminating,
)
from modelyard.components.deploy.settings import Target
from modelyard.components.errors import ClusterError, ConfigError, DeployError
from modelyard.components.kubernetes import Json
from modelyard.components.kubernetes.cluster import connect, retry_on_conflict
from modelyard.components.kubernetes.pod_problem import find_problem, is_ready

MANAGER = "modelyard-deploy"
HEARTBEAT_MANAGER = "modelyard-heartbeat"  # owns that annotation alone; the rest stays deploy's
REVISION = "deployment.kubernetes.io/revision"  # grows with each use of a ReplicaSet
TERMINATION_TIMEOUT = (
    60.0  # seconds; a server needs fewer to end, unless its node is lost or its drain_timeout is long
)
JOIN_TIMEOUT = (
    5.0  # seconds after which a rollout that marked the Service without a candidate counts as killed
)
GOLDEN_RETRY_SECONDS = (
    10.0  # seconds in which a golden request is sent again while the API server is unavailable
)
STABLE_SUPERSEDED = "another rollout brings stable to another version"


@dataclass(kw_only=True)
class DeploymentPlatform(ModelPods):
    """A model in a namespace of a cluster; see ModelPods for the other arguments.

    Args:
        store: `store` section as JSON, as pods reach it.
        serving: gives the section `serving` with which a version is served.
    """

    deploy_command: ClassVar[str] = "deploy -e ENV"
    follows_pointer: ClassVar[bool] = False

    store: str
    serving: Callable[[int], Json]

    @staticmethod
    def client_url(name: str, target: Target) -> str:
        """See ServingPlatform: of the Service."""
        return objects.service_url(name, target.namespace, target.tls_secret is not None)

    @classmethod
    def open(cls, config: PlatformConfig) -> "DeploymentPlatform":
        """See ServingPlatform."""
        return cls(
            name=config.name,
            cluster=connect(config.target.namespace),
            target=config.target,
            store=config.store,
            serving=config.serving,
            rollout=config.rollout,
            log=config.log,
        )

    # What there is -------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """See ServingPlatform: the Service's uid."""
        found = self._service()
        return str(found["metadata"]["uid"]) if found else ""

    @property
    def location(self) -> str:
        """See ServingPlatform."""
        return self.cluster.namespace

    def status(self, problems: bool = False) -> Status:
        """See ServingPlatform."""
        stable, candidate = self.deployment("stable"), self.deployment("candidate")
        pods = self.cluster.list_objects("Pod", objects.selector(self.name))
        found = [*filter(None, (stable, candidate)), *filter(is_active, pods)]
        if candidate and is_terminating(candidate):
            candidate = None
        why = [*self._problems("stable", stable), *self._problems("candidate", candidate)] if problems else []
        return Status(
            stable=_servers_of(stable, pods) if stable else None,
            candidate=_servers_of(candidate, pods) if candidate else None,
            token=objects.annotation(candidate, objects.TOKEN_ANNOTATION) if candidate else "",
            canary=bool(candidate and _selects_candidate(self._service())),
            stable_serves=stable is not None
            and any(is_ready(pod) and objects.track(pod) == "stable" for pod in pods),
            heartbeat=objects.last_heartbeat(candidate) if candidate else None,
            loaded=frozenset(filter(None, map(objects.version, found))),
            problems=tuple(why),
        )

    def describe_servers(self, version: int, digest: str, as_last_served: bool = False) -> Servers:
        """See ServingPlatform; what is remembered is the image, by the ReplicaSets that are left.

        Raises:
            ConfigError: Kubernetes has no such names, or no image is known.
        """
        if not self.name[:1].isalpha():
            raise ConfigError(
                f"{self.name!r} cannot be served on Kubernetes, where a Service's name begins with a letter: "
                "give the model such a name."
            )
        image = (self._last_served_image(version) if as_last_served else None) or self.target.image
        if image is None:
            raise ConfigError(
                f"There is no image for the servers of {self.name}: `make images` builds it, or name one in "
                "environment.images.serve."
            )
        self.token()  # without its Secret no pod would start
        template = objects.pod_template(
            self.name,
            version,
            digest,
            image=image,
            target=self.target,
            rollout=self.rollout,
            store=self.store,
            serving=self.serving(version),
        )
        return _servers_from_template(template)

    # The candidate -------------------------------------------------------------------------------

    def claim(self, token: str, servers: Servers) -> None:
        """See ServingPlatform.

        Raises:
            DeployError: an old candidate does not end.
            ClusterError: the cluster refuses it, or does not answer.
        """
        what, replace = f"Deployment {self.name}-candidate", partial(self._replace_candidate, token, servers)
        retry_on_conflict(what, replace)
        self.write_heartbeat(token)
        if self._lacks_quota(token, servers.version):
            self._wait_until_gone()
            retry_on_conflict(what, replace)

        def to_stable() -> bool | None:
            self.owned_candidate(token)
            return self._write_service(self._service(), canary=False, token=token) or None

        # the earlier rollout may have joined it just now
        retry_on_conflict(f"Service {self.name}", to_stable)

    def verify(self, servers: Servers, check: Check, token: str | None = None) -> int:
        """See ServingPlatform.

        Stable is checked twice where that fails: a pod may be gone meanwhile, or a connection lost.
        """
        track: Track = "candidate" if token else "stable"
        read = partial(self.owned_candidate, token) if token else partial(self._current_stable, servers)
        self.wait_until_complete(track, read)
        try:
            return self._check(track, servers.version, check)
        except (ClusterError, DeployError):
            if token:
                raise
            self._current_stable(servers)
            return self._check(track, servers.version, check)

    def open_window(self, token: str) -> TrafficWindow:
        """See ServingPlatform."""
        return PodTrafficWindow(self, token)

    def route_to_candidate(self, token: str) -> None:
        """See ServingPlatform.

        Where another rollout marked the Service, or the Service changes after it was observed, the candidate
        may not be this one's any more.
        """
        deadline = self.now() + JOIN_TIMEOUT

        def join() -> bool | None:
            service = self._service()
            self.owned_candidate(token)
            marked = service is not None and objects.annotation(service, objects.TOKEN_ANNOTATION) not in (
                "",
                token,
            )
            if marked and self.now() < deadline:
                return None
            return self._write_service(service, canary=True, token=token) or None

        retry_on_conflict(f"Service {self.name}", join)

    def withdraw(self, token: str | None = None) -> int | None:
        """See ServingPlatform."""

        def write() -> int | None:
            service, observed = self._service(), self.deployment("candidate")
            if observed is None or (
                token and objects.annotation(observed, objects.TOKEN_ANNOTATION) != token
            ):
                return 0
            try:
                if not self._write_service(service, canary=False):
                    return None
            except ClusterError:
                self.cluster.delete("Deployment", observed)
                raise
            gone = is_terminating(observed) or self.cluster.delete("Deployment", observed)
            return objects.version(observed) if gone else None

        return retry_on_conflict(f"The candidate of {self.name}", write) or None

    def write_heartbeat(self, token: str) -> None:
        """See ServingPlatform."""
        with suppress(ClusterError):
            found = self.deployment("candidate")
            if found and objects.annotation(found, objects.TOKEN_ANNOTATION) == token:
                self.cluster.apply(objects.heartbeat(found, datetime.now(UTC)), HEARTBEAT_MANAGER)

    def _replace_candidate(self, token: str, servers: Servers) -> Json | None:
        """Write the candidate over the present one; None when that one has to go first, or changed."""
        if not self._write_service(
            self._service(), canary=False, token=token
        ):  # no rollout joins from here on
            return None
        observed = self.deployment("candidate")
        if observed and is_terminating(observed):
            self._wait_until_gone()
            return None
        if observed and not servers.matches(_servers_of(observed)):
            self.log(f"replacing the candidate of version {objects.version(observed)}")
            self.cluster.delete("Deployment", observed)
            return None
        desired = objects.deployment(self.name, "candidate", self.cluster.namespace, servers.state, token)
        stable, share = self.deployment("stable"), self.rollout.canary_share
        beside = stable["spec"].get("replicas", 1) if stable else 1
        desired["spec"]["replicas"] = max(1, round(beside * share / (1 - share)))
        return self.cluster.apply(_require_unchanged(desired, observed), MANAGER)

    def _lacks_quota(self, token: str, version: int) -> bool:
        """Return whether a quota has no room for the candidate beside the servers of an earlier one.

        Those end. The candidate is deleted: created again when they have ended, Kubernetes tries it at once.
        """
        deadline, labels = self.now() + TERMINATION_TIMEOUT, objects.selector(self.name, "candidate")
        while self.now() < deadline and any(
            is_terminating(pod) or objects.version(pod) != version
            for pod in self.cluster.list_objects("Pod", labels)
        ):
            found = self.deployment("candidate")
            if found is None or objects.annotation(found, objects.TOKEN_ANNOTATION) != token:
                return False
            if find_refusal(found):
                if self.cluster.delete("Deployment", found):
                    return True
            elif self.pods("candidate", version):
                return False
            self.sleep(POLL_SECONDS)
        return False

    def _wait_until_gone(self) -> None:
        """Wait for an earlier candidate and its servers to end."""
        deadline, labels = self.now() + TERMINATION_TIMEOUT, objects.selector(self.name, "candidate")
        self.log("waiting for the servers of the previous candidate to end")
        while self.now() < deadline:
            found = self.deployment("candidate")
            if (found and not is_terminating(found)) or not (
                found or self.cluster.list_objects("Pod", labels)
            ):
                return
            self.sleep(POLL_SECONDS)
        if self.deployment("candidate"):
            raise DeployError(f"The old candidate of {self.name} does not end. Delete it by hand.")

    # Stable --------------------------------------------------------------------------------------

    def reconcile(self, servers: Servers | None, observed: Servers | None) -> None:
        """See ServingPlatform."""

        def write() -> Json | bool | None:
            found = self.deployment("stable")
            current = _servers_of(found) if found else None
            if not any(_matches(current, one) for one in (observed, servers)):
                raise Superseded(STABLE_SUPERSEDED)
            if servers is None:
                return found is None or self.cluster.delete("Deployment", found) or None
            desired = objects.deployment(self.name, "stable", self.cluster.namespace, servers.state)
            if found is None or _owns_replicas(found):
                desired["spec"]["replicas"] = self.target.replicas
            return self.cluster.apply(_require_unchanged(desired, found), MANAGER)

        retry_on_conflict(f"Deployment {self.name}-stable", write)
        if servers is None:
            return
        self.wait_until_complete("stable", partial(self._current_stable, servers))
        service = self._service()
        if self.deployment("candidate") is None:
            self._write_service(service, canary=False)  # a rollout that begins just now does the same

    def _current_stable(self, servers: Servers) -> Json:
        """Return stable's Deployment while it is of these servers."""
        found = self.deployment("stable")
        if found is None or not servers.matches(_servers_of(found)):
            raise Superseded(STABLE_SUPERSEDED)
        return found

    def _last_served_image(self, version: int) -> str | None:
        """Return the image with which stable served a version last, else the one that it has now."""
        sets = self.cluster.list_objects("ReplicaSet", objects.selector(self.name, "stable", version))
        last = max(sets, key=lambda one: int(objects.annotation(one, REVISION) or 0), default=None)
        found = last or self.deployment("stable")
        return objects.image(found["spec"]["template"]) if found else None

    # Shared --------------------------------------------------------------------------------------

    def _check(self, track: Track, version: int, check: Check) -> int:
        pods = self.ready_pods(track, version)
        for pod in pods:
            check(self.pod_server(pod, retry_seconds=GOLDEN_RETRY_SECONDS))
        return len(pods)

    def _service(self) -> Json | None:
        return self.cluster.get("Service", self.name)

    def _write_service(self, observed: Json | None, *, canary: bool, token: str = "") -> bool:
        """Let the Service select stable alone, or the candidate too; mark it with a rollout's token.

        Nothing is written, and False returned, if the Service is not as observed any more.
        """
        desired = objects.service(self.name, self.cluster.namespace, canary, token)
        return self.cluster.apply(_require_unchanged(desired, observed), MANAGER) is not None

    def _problems(self, track: Track, deployment: Json | None) -> list[str]:
        if deployment is None:
            return []
        pods = [pod for pod in self.pods(track) if not is_ready(pod)]  # a problem of a ready pod is over
        found = [find_problem(pod, self.cluster.list_events(pod), self.cluster.nodes) for pod in pods]
        messages = (find_refusal(deployment), *(problem and problem.message for problem in found))
        return [message for message in messages if message]


def _servers_of(deployment: Json, pods: Sequence[Json] = ()) -> Servers:
    servers, track = _servers_from_template(deployment["spec"]["template"]), objects.track(deployment)
    ready = [pod for pod in pods if is_ready(pod) and objects.track(pod) == track]
    numbers = {
        "desired": deployment["spec"].get("replicas", 1),
        "ready": sum(objects.version(pod) == servers.version for pod in ready),
    }
    return servers.model_copy(update=numbers)


def _servers_from_template(template: Json) -> Servers:
    return Servers(
        version=objects.version(template),
        digest=objects.annotation(template, objects.DIGEST_ANNOTATION),
        fingerprint=objects.annotation(template, objects.TEMPLATE_ANNOTATION),
        image=objects.image(template),
        state=template,
    )


def _matches(one: Servers | None, other: Servers | None) -> bool:
    return one is other is None or (one is not None and one.matches(other))


def _selects_candidate(service: Json | None) -> bool:
    """Return whether the Service selects the candidate too."""
    return bool(
        service and objects.TRACK_LABEL not in (service["spec"].get("selector") or {objects.TRACK_LABEL: ""})
    )


def _require_unchanged(desired: Json, observed: Json | None) -> Json:
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
