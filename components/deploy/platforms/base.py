"""What a rollout asks of a serving platform.

A platform runs two tracks of a model's servers: *stable*, to which clients are led, and during a rollout the
*candidate*. It decides nothing: rollout.py owns the order, the champion pointer, and the token of a rollout.

The platform keeps the token at the candidate. Each method that takes a token raises Superseded if the
candidate is another rollout's by now, and each method that takes observed servers if stable is not as
observed any more. So a later rollout takes over from an earlier one, and no lock is ever left behind.
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
HEARTBEAT_TIMEOUT = timedelta(seconds=60)  # clocks differ, and a platform may be unavailable for a moment

Check = Callable[[Server], None]
"""Sends requests to a server; raises DeployError if an answer is wrong or missing."""


@dataclass(frozen=True)
class PlatformConfig:
    """What a platform is opened with.

    Args:
        name: the model's name.
        models: the store, as this process reaches it.
        target: which platform, and what its servers ask for; without an image, none can be started.
        store: `store` section as JSON, as servers reach it.
        serving: gives the section `serving` with which a version is served.
        rollout: the time that servers have, and the share of the candidate.
        log: takes each sentence about the progress.
        url: of a running server, where servers have no common one; None: as the section `serving` says.
    """

    name: str
    models: ModelStore
    target: Target
    store: str
    serving: Callable[[int], dict[str, Any]]
    rollout: Rollout
    log: Callable[[str], None]
    url: str | None = None


class Superseded(DeployError):  # noqa: N818 - an end, not a failure
    """Another rollout took over: the candidate is not this one's any more, or stable changed meanwhile."""


class Servers(Record):
    """The servers of one version in one track, as they are to be or as they are.

    `digest` is that of the version's manifest. `fingerprint` stands for everything that decides what they run
    (version, image, settings): equal servers have equal ones, in either track; empty if it is not known.
    `desired` and `ready` are numbers of servers. `state` is the platform's own.
    """

    version: int
    digest: str
    fingerprint: str
    image: str | None = None
    desired: int = 0
    ready: int = 0
    state: Any = Field(default=None, exclude=True, repr=False)

    def matches(self, other: "Servers | None") -> bool:
        """Return whether the other servers run the same."""
        key = self.version, self.fingerprint, self.image
        return other is not None and key == (other.version, other.fingerprint, other.image)


class Status(Record):
    """What a platform runs of a model.

    `token` is the candidate's, or empty. `canary` tells whether clients reach the candidate too,
    `stable_serves` whether any server of stable answers. `heartbeat` is the candidate's last one, in UTC.
    `loaded` has every version that a server has loaded, or loads when it is started again. `problems` are
    what keeps servers from running, if they were asked for.
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
        """Whether the candidate's rollout was killed: it has no heartbeat any more."""
        lost = self.heartbeat is None or datetime.now(UTC) - self.heartbeat > HEARTBEAT_TIMEOUT
        return self.candidate is not None and lost


@dataclass(frozen=True)
class RequestCounts:
    """The requests that servers executed, by sender, how many failed, and the seconds of all of them.

    What a server refused (4xx, 503, 504) was not executed, and says nothing about a version.
    """

    client: int = 0
    golden: int = 0
    failed: int = 0
    seconds: float = 0.0

    @property
    def requests(self) -> int:
        """All requests that were executed."""
        return self.client + self.golden

    @property
    def latency(self) -> float:
        """Mean seconds of a request."""
        return self.seconds / self.requests if self.requests else 0.0

    def __add__(self, other: "RequestCounts") -> "RequestCounts":
        return RequestCounts(*map(add, astuple(self), astuple(other)))

    def __sub__(self, other: "RequestCounts") -> "RequestCounts":
        return RequestCounts(*map(sub, astuple(self), astuple(other)))


@dataclass(frozen=True)
class Traffic:
    """What both tracks answered since a window was opened.

    `candidate_responding` is whether all of the candidate's servers are ready and say what they answered.
    """

    candidate: RequestCounts
    stable: RequestCounts
    candidate_responding: bool


class TrafficWindow(Protocol):
    """What is answered from the moment at which it was opened."""

    def read(self) -> Traffic:
        """Return what was answered so far.

        Raises:
            DeployError: a server of the candidate cannot run, with the reason.
            Superseded: see the module.
        """

    def candidate_share(self) -> float:
        """Return the share of clients' requests that reaches the candidate, above 0."""

    def send(self, instance: Any) -> None:
        """Send a golden request on the way that clients' requests take.

        Raises:
            ServeError: it was not answered.
        """


class ServingPlatform(Protocol):
    """What serves one model. A method may be called again after it failed or its process was killed.

    Attributes:
        name: the model's name.
        id: of the place where it serves, in all the world; empty while nothing serves there yet, or where
            servers follow the pointer.
        where: the place for people.
        command: with which a person serves a version, without its model and number.
        follows: whether its servers follow the champion pointer by themselves.
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
        """Return where clients beside the servers reach a model; None where there is no common place."""

    @property
    def id(self) -> str:
        """See the class."""

    @property
    def location(self) -> str:
        """See the class."""

    def status(self, problems: bool = False) -> Status:
        """Return what runs; with what keeps servers from running, if `problems`, which takes longer."""

    def describe_servers(self, version: int, digest: str, as_last_served: bool = False) -> Servers:
        """Return servers of a version as the platform is configured now.

        With `as_last_served`, as the platform ran them last in stable, as far as it remembers that.
        """

    def claim(self, token: str, servers: Servers) -> None:
        """Make these servers the candidate of a rollout, and lead clients to stable alone.

        A candidate of the same servers stays, and any other goes.
        """

    def verify(self, servers: Servers, check: Check, token: str | None = None) -> int:
        """Wait until all servers of a track are ready and check each; return how many there are.

        The track is the candidate with a token, and stable without one; then it is Superseded if it is
        changed to other servers meanwhile.

        Raises:
            DeployError: one does not run, with the reason, or fails the check.
        """

    def open_window(self, token: str) -> TrafficWindow | None:
        """Count what is answered from now on; None where clients reach no candidate."""

    def route_to_candidate(self, token: str) -> None:
        """Lead clients to the candidate too."""

    def reconcile(self, servers: Servers | None, observed: Servers | None) -> None:
        """Turn stable from what was observed into these servers, and wait until they are ready.

        `servers` may be the candidate's, or what stable was before: it gets exactly those. None removes
        stable. How many there are stays with whoever scaled them.

        Raises:
            DeployError: they do not run, with the reason.
        """

    def withdraw(self, token: str | None = None) -> int | None:
        """Take the candidate from clients and delete it; return its version, or None if there is none.

        With a token, only if it is of that rollout.
        """

    def write_heartbeat(self, token: str) -> None:
        """Note at the candidate that its rollout is alive. An error does not matter."""


def superseded_error(name: str, version: int | None) -> Superseded:
    """Return that the candidate was withdrawn, or that another rollout, of `version`, took its place."""
    if version is None:
        return Superseded(f"the candidate of {name} was withdrawn by another command; deploy it again")
    return Superseded(f"another rollout, of version {version}, took the candidate's place")
