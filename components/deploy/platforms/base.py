"""The interface of a serving platform.

A platform runs a model's servers in two tracks: *stable*, which receives the clients' requests, and during a
rollout the *candidate*. The platform decides nothing: rollout.py owns the phases, the champion pointer and
the token of a rollout.

The platform stores the token with the candidate. Methods that take a token raise Superseded if the candidate
has another token; methods that take observed servers do so if stable changed since. A later rollout thus
takes over from an earlier one, and there is no lock that a killed process could leave behind.
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
    """The URL and credentials of a running server. Default: the section `serving` of the champion.

    Args:
        url: its URL; an error is raised if no server of the model responds there.
        token_file: the file whose first line is its bearer token.
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
        name: the model's name.
        models: the store, as this process reaches it.
        target: the platform and the resources of its servers; without an image, none can be started.
        store: the section `store` as JSON, as servers reach it.
        serving: returns the section `serving` of a version.
        rollout: the section `rollout`.
        log: logs a message.
        server: the running server whose status is read, if the servers are processes.
    """

    name: str
    models: ModelStore
    target: Target
    store: str
    serving: Callable[[int], dict[str, Any]]
    rollout: Rollout
    log: Callable[[str], None]
    server: RunningServer = DEFAULT_SERVER


class Superseded(DeployError):  # noqa: N818 - not a failure
    """Another rollout took over the candidate, or changed stable."""


class Servers(Record):
    """The desired or observed servers of a version in a track.

    `digest` is that of the version's manifest. `fingerprint` identifies version, image and settings in either
    track; empty if unknown. `desired` and `ready` are numbers of servers. `state` is private to the platform.
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

    `token` is that of the candidate's rollout, or empty. `canary` is whether clients reach the candidate too,
    `stable_serves` whether a server of stable is ready. `heartbeat` is the candidate's last one, in UTC.
    `loaded` are the versions that servers have loaded or load after a restart. `problems` prevent servers
    from running.
    """

    stable: Servers | None = None
    candidate: Servers | None = None
    token: str = ""
    canary: bool = False
    stable_serves: bool = False
    heartbeat: datetime | None = None
    loaded: frozenset[int] = frozenset()
    problems: tuple[str, ...] = ()

    @property
    def abandoned(self) -> bool:
        """Whether the candidate's rollout was killed: its heartbeat stopped."""
        stopped = self.heartbeat is None or datetime.now(UTC) - self.heartbeat > HEARTBEAT_TIMEOUT
        return self.candidate is not None and stopped


@dataclass(frozen=True)
class RequestCounts:
    """Numbers of executed requests by sender, number of failures, and the total time in seconds.

    Requests that a server refuses (4xx, 503, 504) are not executed and do not count.
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
            DeployError: a server of the candidate cannot run, with the reason.
            Superseded: see the module.
        """

    def candidate_share(self) -> float:
        """Return the share of clients' requests that the candidate receives; above 0."""

    def send(self, instance: Any) -> None:
        """Send a golden request to the same URL as clients do.

        Raises:
            ServeError: there is no valid prediction.
        """


class ServingPlatform(Protocol):
    """Serves one model. A method may be called again after it failed or its process was killed.

    Attributes:
        name: the model's name.
        id: globally unique id of the model's servers; empty before they exist, or if they follow the pointer.
        location: description of where the servers run, such as a namespace.
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
        """See the class."""

    @property
    def location(self) -> str:
        """See the class."""

    def status(self, problems: bool = False) -> Status:
        """Return the state; with `problems`, which take longer to collect, if requested."""

    def describe_servers(self, version: int, digest: str, as_last_served: bool = False) -> Servers:
        """Return the desired servers of a version, for the current configuration.

        With `as_last_served`, as stable ran them last, as far as the platform has recorded it.
        """

    def claim(self, token: str, servers: Servers) -> None:
        """Make these servers the candidate of a rollout, and route clients to stable alone.

        A candidate that matches them is taken over, another one is deleted.
        """

    def verify(self, servers: Servers, check: Check, token: str | None = None) -> int:
        """Wait until all servers of a track are ready and check each; return their number.

        With a token the track is the candidate, without one it is stable.

        Raises:
            DeployError: a server does not run, with the reason, or fails the check.
            Superseded: the track has other servers.
        """

    def open_window(self, token: str) -> TrafficWindow | None:
        """Count requests from now on; None if clients never reach a candidate."""

    def route_to_candidate(self, token: str) -> None:
        """Route clients to the candidate too."""

    def reconcile(self, servers: Servers | None, observed: Servers | None) -> None:
        """Change stable from the observed servers to these, and wait until they are ready.

        `servers` may be the candidate's or earlier ones of stable, which are restored exactly. None deletes
        stable. The number of replicas does not change.

        Raises:
            DeployError: the servers do not run, with the reason.
        """

    def withdraw(self, token: str | None = None) -> int | None:
        """Route clients to stable alone and delete the candidate; return its version, None without one.

        With a token, only the candidate of that rollout.
        """

    def write_heartbeat(self, token: str) -> None:
        """Record with the candidate that its rollout is alive; errors are ignored."""


def superseded_error(name: str, version: int | None) -> Superseded:
    """Return the error: the candidate was withdrawn, or the rollout of `version` replaced it."""
    if version is None:
        return Superseded(f"the candidate of {name} was withdrawn by another command; deploy it again")
    return Superseded(f"the rollout of version {version} replaced the candidate")
