"""The interface of a serving platform.

A platform runs a model's servers in two tracks: *stable*, which receives the clients' requests, and during a
rollout the *candidate*. The platform makes no decisions: rollout.py implements the phases, moves the champion
pointer and creates the token of a rollout.

The platform stores the token with the candidate. Methods with a token raise Superseded if the candidate has
another token. Methods with observed servers raise Superseded if stable changed since it was observed. So a
later rollout can take over from an earlier one, without a lock that a killed process would leave behind.
"""

from collections.abc import Callable
from dataclasses import astuple, dataclass
from datetime import UTC, datetime, timedelta
from operator import add, sub
from typing import Any, ClassVar, Protocol

from pydantic import Field

from modelyard.components.artifacts import Record
from modelyard.components.deploy.settings import Rollout, Target
from modelyard.components.errors import DeployError
from modelyard.components.server import Server
from modelyard.components.store.models import ModelStore

HEARTBEAT_SECONDS = 10.0
HEARTBEAT_TIMEOUT = timedelta(seconds=60)  # tolerates clock skew and short outages of a platform

Check = Callable[[Server], None]
"""Sends requests to a server; raises DeployError if a response is wrong or missing."""


@dataclass(frozen=True)
class RunningServer:
    """The URL and credentials of a running server.

    By default, they are those in the section `serving` of the champion.

    Args:
        url: the URL. With a URL, it is an error if no server of the model responds.
        token_file: file with the bearer token in its first line.
        ca: PEM file with the certificate authorities to trust.
    """

    url: str | None = None
    token_file: str | None = None
    ca: str | None = None


DEFAULT_SERVER = RunningServer()


@dataclass
class PlatformConfig:
    """The arguments of a platform; the base class of platforms.

    Args:
        models: the model store, with the endpoint for this process.
        target: the platform and the resources of its servers. Servers can be started only if it has an image.
        store: the section `store` as JSON, with the endpoint for servers.
        serving: returns the section `serving` of a version; for None, that of variables and options.
        server: the server whose status is read, if servers are processes of this machine.
    """

    name: str
    models: ModelStore
    target: Target
    store: str
    serving: Callable[[int | None], dict[str, Any]]
    rollout: Rollout
    log: Callable[[str], None]
    server: RunningServer = DEFAULT_SERVER


class Superseded(DeployError):  # noqa: N818 - not a failure
    """Another rollout took over the candidate, or changed stable."""


class Servers(Record):
    """The desired or observed servers of a version in a track.

    Attributes:
        digest: the digest of the version's manifest.
        fingerprint: identifies version, image and settings, equal in both tracks; empty if unknown.
        image: the image of the servers, or the URL of a server of this machine.
        desired, ready: numbers of servers.
        state: data of the platform, which other modules do not read.
    """

    version: int
    digest: str
    fingerprint: str
    image: str | None = None
    desired: int = 0
    ready: int = 0
    state: Any = Field(default=None, exclude=True, repr=False)

    def matches(self, other: "Servers | None") -> bool:
        """Return whether the other servers run the same version, image and settings."""
        key = self.version, self.fingerprint, self.image
        return other is not None and key == (other.version, other.fingerprint, other.image)


class Status(Record):
    """The state of a model on a platform.

    Attributes:
        token: the token of the candidate's rollout, or empty.
        canary: whether clients also reach the candidate.
        stable_serves: whether a server of stable is ready.
        heartbeat: time of the candidate's last heartbeat, in UTC.
        loaded_versions: the versions that servers have loaded, or will load after a restart.
        errors: the reasons why servers do not run.
    """

    stable: Servers | None = None
    candidate: Servers | None = None
    token: str = ""
    canary: bool = False
    stable_serves: bool = False
    heartbeat: datetime | None = None
    loaded_versions: frozenset[int] = frozenset()
    errors: tuple[str, ...] = ()

    @property
    def abandoned(self) -> bool:
        """Whether the candidate's heartbeat has stopped, because its rollout was killed."""
        stopped = self.heartbeat is None or datetime.now(UTC) - self.heartbeat > HEARTBEAT_TIMEOUT
        return self.candidate is not None and stopped


@dataclass(frozen=True)
class RequestCounts:
    """Numbers of executed requests: of clients, golden, and failed; `seconds` is their total duration.

    Requests that a server refuses (4xx, 503, 504) are not executed and are not counted.
    """

    client: int = 0
    golden: int = 0
    failed: int = 0
    seconds: float = 0.0

    @property
    def requests(self) -> int:
        """Number of executed requests."""
        return self.client + self.golden

    @property
    def latency(self) -> float:
        """Mean seconds per request."""
        return self.seconds / self.requests if self.requests else 0.0

    def __add__(self, other: "RequestCounts") -> "RequestCounts":
        return RequestCounts(*map(add, astuple(self), astuple(other)))

    def __sub__(self, other: "RequestCounts") -> "RequestCounts":
        return RequestCounts(*map(sub, astuple(self), astuple(other)))


@dataclass(frozen=True)
class Traffic:
    """The requests of both tracks since a window was opened.

    `candidate_responding` is whether all servers of the candidate are ready and report their metrics.
    """

    candidate: RequestCounts
    stable: RequestCounts
    candidate_responding: bool


class TrafficWindow(Protocol):
    """Counts requests from the moment at which it is opened."""

    def read(self) -> Traffic:
        """Return the requests so far.

        Raises:
            DeployError: a server of the candidate cannot run; the message contains the reason.
            Superseded: the candidate belongs to another rollout.
        """

    def candidate_share(self) -> float:
        """Return the share of the clients' requests that the candidate receives, above 0."""

    def send(self, instance: Any) -> None:
        """Send a golden request to the same URL as clients do.

        Raises:
            ServeError: there is no valid prediction.
        """


class ServingPlatform(Protocol):
    """Serves one model. A method may be called again after it failed or its process was killed.

    Attributes:
        deploy_command: the command that deploys a version, without its arguments.
        follows_pointer: whether running servers follow the champion pointer.
    """

    name: str
    deploy_command: ClassVar[str]
    follows_pointer: ClassVar[bool]

    @classmethod
    def open(cls, config: PlatformConfig) -> "ServingPlatform":
        """Return the platform of a model.

        Raises:
            ClusterError: there is no cluster.
        """

    @staticmethod
    def client_url(name: str, target: Target) -> str | None:
        """Return the URL for clients in the same network; None if servers have no common URL."""

    @property
    def id(self) -> str:
        """Globally unique id of the servers; empty before they exist, or if they follow the pointer."""

    @property
    def location(self) -> str:
        """Description of where the servers run, such as a namespace."""

    def status(self, errors: bool = False) -> Status:
        """Return the state. `errors` are collected only if requested, as this takes longer."""

    def describe_servers(self, version: int, digest: str, as_last_served: bool = False) -> Servers:
        """Return the desired servers of a version, for the current configuration.

        With `as_last_served`, they are the servers with which stable last served the version, if the platform
        has recorded them.
        """

    def claim(self, token: str, servers: Servers) -> None:
        """Make these servers the candidate of a rollout, and route clients only to stable.

        An existing candidate is taken over if it matches these servers, and deleted otherwise.
        """

    def verify(self, servers: Servers, check: Check, token: str | None = None) -> int:
        """Wait until all servers of a track are ready and check each; return their number.

        With a token, the track is the candidate. Without a token, it is stable.

        Raises:
            DeployError: a server does not run or fails the check; the message contains the reason.
            Superseded: the track has other servers.
        """

    def open_window(self, token: str) -> TrafficWindow | None:
        """Return a window that counts requests from now on, or None if clients never reach a candidate."""

    def route_to_candidate(self, token: str) -> None:
        """Also route clients to the candidate."""

    def reconcile(self, servers: Servers | None, observed: Servers | None) -> None:
        """Change stable from the observed servers to `servers`, and wait until they are ready.

        `servers` may be the servers of the candidate, or earlier servers of stable. They are applied exactly,
        but the number of replicas does not change. If `servers` is None, stable is deleted.

        Raises:
            DeployError: the servers do not run; the message contains the reason.
            Superseded: another rollout changed stable since it was observed.
        """

    def withdraw(self, token: str | None = None) -> int | None:
        """Route clients only to stable and delete the candidate; return its version.

        With a token, only the candidate of that rollout is deleted. The result is None if there is no such
        candidate.
        """

    def write_heartbeat(self, token: str) -> None:
        """Record the time on the candidate, to show that its rollout is running; ignore errors."""


def superseded_error(name: str, version: int | None) -> Superseded:
    """Return the error of a rollout whose candidate was replaced by `version`, or withdrawn (None)."""
    if version is None:
        return Superseded(f"The candidate of {name} was removed by another command. Deploy it again.")
    return Superseded(f"The rollout of version {version} replaced the candidate.")
