"""The serving platform on Kubernetes: two Deployments and a Service, without a CRD.

NAME-stable, NAME-candidate    the Deployments; the candidate is annotated with the token of its rollout
NAME                           the Service; it selects the pods of stable, and may also select the candidate

The canary is a share of the pods. A rollout annotates the Service with its token before it takes over the
candidate. It changes the Service only if the Service is unchanged since it was read. So no rollout routes
clients to an unverified candidate of another rollout.
"""

from collections.abc import Sequence
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
HEARTBEAT_MANAGER = "modelyard-heartbeat"  # owns only the heartbeat annotation
REVISION = "deployment.kubernetes.io/revision"  # increases with each use of a ReplicaSet
TERMINATION_TIMEOUT = 60.0  # seconds; only lost nodes and a long drain_timeout take longer
TAKEOVER_TIMEOUT = 5.0  # seconds for a rollout that annotated the Service to take over the candidate
GOLDEN_RETRY_SECONDS = 10.0  # for which a golden request is retried while the API server is unavailable
STABLE_SUPERSEDED = "Another rollout changed stable."


@dataclass(kw_only=True)
class DeploymentPlatform(ModelPods):
    """Serves a model in a namespace of a cluster.

    ModelPods and PlatformConfig describe the arguments.
    """

    deploy_command: ClassVar[str] = "deploy -e ENV"
    follows_pointer: ClassVar[bool] = False

    @staticmethod
    def client_url(name: str, target: Target) -> str:
        """Return the URL of the Service."""
        return objects.service_url(name, target.namespace, target.tls_secret is not None)

    @classmethod
    def open(cls, config: PlatformConfig) -> "DeploymentPlatform":
        return cls(**vars(config), cluster=connect(config.target.namespace))

    # State ---------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The Service's uid; empty if there is no Service."""
        service = self._service()
        return str(service["metadata"]["uid"]) if service else ""

    @property
    def location(self) -> str:
        return self.cluster.namespace

    def status(self, errors: bool = False) -> Status:
        stable, candidate = self.deployment("stable"), self.deployment("candidate")
        pods = self.cluster.list_objects("Pod", objects.selector(self.name))
        loaders = [*filter(None, (stable, candidate)), *filter(is_active, pods)]  # they load a version
        if candidate and is_terminating(candidate):
            candidate = None
        messages: list[str] = []
        if errors:
            messages = [*self._find_errors("stable", stable), *self._find_errors("candidate", candidate)]
        return Status(
            stable=_read_servers(stable, pods) if stable else None,
            candidate=_read_servers(candidate, pods) if candidate else None,
            token=objects.token(candidate) if candidate else "",
            canary=bool(candidate and _selects_candidate(self._service())),
            stable_serves=stable is not None
            and any(is_ready(pod) and objects.track(pod) == "stable" for pod in pods),
            heartbeat=objects.last_heartbeat(candidate) if candidate else None,
            loaded_versions=frozenset(filter(None, map(objects.version, loaders))),
            errors=tuple(messages),
        )

    def describe_servers(self, version: int, digest: str, as_last_served: bool = False) -> Servers:
        """See ServingPlatform; with `as_last_served`, the image is that of the version's last ReplicaSet.

        Raises:
            ConfigError: the model's name is not valid for a Service, or there is no image.
        """
        if not self.name[:1].isalpha():
            raise ConfigError(
                f"{self.name!r} cannot be served on Kubernetes, where the name of a Service begins with a "
                "letter. Rename the model."
            )
        image = (self._last_served_image(version) if as_last_served else None) or self.target.image
        if image is None:
            raise ConfigError(
                f"There is no image for the servers of {self.name}. Build it with `make images`, or set "
                "environment.images.serve."
            )
        self.token()  # raises when the Secret is missing
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
        """See ServingPlatform; raise DeployError if the previous candidate is not deleted in time."""
        name, replace = f"Deployment {self.name}-candidate", partial(self._replace_candidate, token, servers)
        retry_on_conflict(name, replace)
        self.write_heartbeat(token)
        if self._delete_if_over_quota(token, servers.version):
            self._wait_until_gone()
            retry_on_conflict(name, replace)

        def route_to_stable() -> bool | None:
            self.owned_candidate(token)
            return self._write_service(self._service(), canary=False, token=token) or None

        # the earlier rollout may have added the candidate to the Service meanwhile
        retry_on_conflict(f"Service {self.name}", route_to_stable)

    def verify(self, servers: Servers, check: Check, token: str | None = None) -> int:
        """See ServingPlatform; a failed check of stable is repeated once, because a pod may have ended."""
        track: Track = "candidate" if token else "stable"
        read = partial(self.owned_candidate, token) if token else partial(self._current_stable, servers)
        self.wait_until_complete(track, read)
        try:
            return self._check_pods(track, servers.version, check)
        except (ClusterError, DeployError):
            if token:
                raise
            self._current_stable(servers)
            return self._check_pods(track, servers.version, check)

    def open_window(self, token: str) -> TrafficWindow:
        return PodTrafficWindow(self, token)

    def route_to_candidate(self, token: str) -> None:
        """See ServingPlatform.

        If another rollout annotated the Service, wait up to TAKEOVER_TIMEOUT seconds for that rollout to
        take over the candidate.
        """
        deadline = self.now() + TAKEOVER_TIMEOUT

        def route_to_both() -> bool | None:
            service = self._service()
            self.owned_candidate(token)
            annotated = service is not None and objects.token(service) not in ("", token)
            if annotated and self.now() < deadline:
                return None
            return self._write_service(service, canary=True, token=token) or None

        retry_on_conflict(f"Service {self.name}", route_to_both)

    def withdraw(self, token: str | None = None) -> int | None:
        def route_and_delete() -> int | None:
            """Return the deleted version, 0 without a candidate, or None if an object changed meanwhile."""
            service, observed = self._service(), self.deployment("candidate")
            if observed is None or (token and objects.token(observed) != token):
                return 0
            try:
                if not self._write_service(service, canary=False):
                    return None
            except ClusterError:
                self.cluster.delete("Deployment", observed)
                raise
            deleted = is_terminating(observed) or self.cluster.delete("Deployment", observed)
            return objects.version(observed) if deleted else None

        return retry_on_conflict(f"The candidate of {self.name}", route_and_delete) or None

    def write_heartbeat(self, token: str) -> None:
        with suppress(ClusterError):
            candidate = self.deployment("candidate")
            if candidate and objects.token(candidate) == token:
                self.cluster.apply(objects.heartbeat(candidate, datetime.now(UTC)), HEARTBEAT_MANAGER)

    def _replace_candidate(self, token: str, servers: Servers) -> Json | None:
        """Create or take over the candidate and return its Deployment.

        Return None if another candidate had to be deleted first, or if an object changed meanwhile.
        """
        if not self._write_service(self._service(), canary=False, token=token):
            return None
        observed = self.deployment("candidate")
        if observed and is_terminating(observed):
            self._wait_until_gone()
            return None
        if observed and not servers.matches(_read_servers(observed)):
            self.log(f"replacing the candidate of version {objects.version(observed)}")
            self.cluster.delete("Deployment", observed)
            return None
        desired = objects.deployment(self.name, "candidate", self.cluster.namespace, servers.state, token)
        stable, share = self.deployment("stable"), self.rollout.canary_share
        replicas = stable["spec"].get("replicas", 1) if stable else 1
        desired["spec"]["replicas"] = max(1, round(replicas * share / (1 - share)))
        return self.cluster.apply(_require_unchanged(desired, observed), MANAGER)

    def _delete_if_over_quota(self, token: str, version: int) -> bool:
        """Delete the candidate if a quota has no room for it beside terminating pods of an earlier one.

        Return whether it was deleted. The caller then creates it again, because Kubernetes creates the pods
        of a new Deployment without a back-off.
        """
        deadline, labels = self.now() + TERMINATION_TIMEOUT, objects.selector(self.name, "candidate")
        while self.now() < deadline and any(
            is_terminating(pod) or objects.version(pod) != version
            for pod in self.cluster.list_objects("Pod", labels)
        ):
            candidate = self.deployment("candidate")
            if candidate is None or objects.token(candidate) != token:
                return False
            if find_refusal(candidate):
                if self.cluster.delete("Deployment", candidate):
                    return True
            elif self.pods("candidate", version):
                return False
            self.sleep(POLL_SECONDS)
        return False

    def _wait_until_gone(self) -> None:
        deadline, labels = self.now() + TERMINATION_TIMEOUT, objects.selector(self.name, "candidate")
        self.log("waiting for the pods of the previous candidate to be deleted")
        while self.now() < deadline:
            candidate = self.deployment("candidate")
            if (candidate and not is_terminating(candidate)) or not (
                candidate or self.cluster.list_objects("Pod", labels)
            ):
                return
            self.sleep(POLL_SECONDS)
        if self.deployment("candidate"):
            raise DeployError(
                f"Deployment {self.name}-candidate still exists {TERMINATION_TIMEOUT:g} s after deletion. "
                "Delete it with kubectl and check its finalizers."
            )

    # Stable --------------------------------------------------------------------------------------

    def reconcile(self, servers: Servers | None, observed: Servers | None) -> None:
        def write() -> Json | bool | None:
            stable = self.deployment("stable")
            current = _read_servers(stable) if stable else None
            if not any(_matches(current, expected) for expected in (observed, servers)):
                raise Superseded(STABLE_SUPERSEDED)
            if servers is None:
                return stable is None or self.cluster.delete("Deployment", stable) or None
            desired = objects.deployment(self.name, "stable", self.cluster.namespace, servers.state)
            if stable is None or _owns_replicas(stable):
                desired["spec"]["replicas"] = self.target.replicas
            return self.cluster.apply(_require_unchanged(desired, stable), MANAGER)

        retry_on_conflict(f"Deployment {self.name}-stable", write)
        if servers is None:
            return
        self.wait_until_complete("stable", partial(self._current_stable, servers))
        service = self._service()
        if self.deployment("candidate") is None:
            self._write_service(service, canary=False)

    def _current_stable(self, servers: Servers) -> Json:
        """Return stable's Deployment; raise Superseded if it has other servers."""
        stable = self.deployment("stable")
        if stable is None or not servers.matches(_read_servers(stable)):
            raise Superseded(STABLE_SUPERSEDED)
        return stable

    def _last_served_image(self, version: int) -> str | None:
        """Return the image with which stable last served a version, or else the current image of stable."""
        replica_sets = self.cluster.list_objects("ReplicaSet", objects.selector(self.name, "stable", version))
        last = max(
            replica_sets,
            key=lambda replica_set: int(objects.annotation(replica_set, REVISION) or 0),
            default=None,
        )
        source = last or self.deployment("stable")
        return objects.image(source["spec"]["template"]) if source else None

    # Shared --------------------------------------------------------------------------------------

    def _check_pods(self, track: Track, version: int, check: Check) -> int:
        pods = self.ready_pods(track, version)
        for pod in pods:
            check(self.pod_server(pod, retry_seconds=GOLDEN_RETRY_SECONDS))
        return len(pods)

    def _service(self) -> Json | None:
        return self.cluster.get("Service", self.name)

    def _write_service(self, observed: Json | None, *, canary: bool, token: str = "") -> bool:
        """Make the Service select stable, with `canary` also the candidate, and annotate it with a token.

        Return False, without a change, if the Service changed since it was observed.
        """
        desired = objects.service(self.name, self.cluster.namespace, canary, token)
        return self.cluster.apply(_require_unchanged(desired, observed), MANAGER) is not None

    def _find_errors(self, track: Track, deployment: Json | None) -> list[str]:
        if deployment is None:
            return []
        pods = [pod for pod in self.pods(track) if not is_ready(pod)]  # ready pods have recovered
        problems = [find_problem(pod, self.cluster.list_events(pod), self.cluster.nodes) for pod in pods]
        messages = (find_refusal(deployment), *(problem and problem.message for problem in problems))
        return [message for message in messages if message]


def _read_servers(deployment: Json, pods: Sequence[Json] = ()) -> Servers:
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


def _matches(current: Servers | None, expected: Servers | None) -> bool:
    return expected is None if current is None else current.matches(expected)


def _selects_candidate(service: Json | None) -> bool:
    """Return whether the Service selects pods of both tracks."""
    selector = (service["spec"].get("selector") or {}) if service else {}
    return bool(selector) and objects.TRACK_LABEL not in selector


def _require_unchanged(desired: Json, observed: Json | None) -> Json:
    """Make `apply` fail if the object changed since it was observed."""
    if observed is not None:
        desired["metadata"]["resourceVersion"] = observed["metadata"]["resourceVersion"]
    return desired


def _owns_replicas(deployment: Json) -> bool:
    """Return whether deploy was the last to set the number of replicas."""
    return any(
        entry["manager"] == MANAGER and "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {})
        for entry in deployment["metadata"].get("managedFields", [])
    )
