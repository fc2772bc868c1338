"""A serving platform and a store in memory, and faults in the calls to them."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from modelyard.components.deploy.platforms.base import (
    Check,
    RequestCounts,
    Servers,
    Status,
    Superseded,
    Traffic,
    superseded_error,
)
from modelyard.components.errors import ConflictError, DeployError, NotFoundError
from modelyard.components.store.objects import Entry


class Killed(BaseException):
    """The process was killed, without a cleanup."""


@dataclass
class World:
    """The state of a platform, shared by all processes; its invariants are checked after each change.

    Servers of `broken` versions do not run, those of versions `broken_as_stable` run only as the candidate,
    and those of `wrong_images` predict differently than evaluate. Once clients reached a server, they always
    reach one, unless `outage_allowed`.
    """

    stable: Servers | None = None
    candidate: Servers | None = None
    token: str = ""
    canary: bool = False
    stable_serves: bool = False
    verified: bool = False
    broken_as_stable: set[int] = field(default_factory=set)
    broken: set[int] = field(default_factory=set)
    wrong_images: set[str] = field(default_factory=set)
    images: dict[int, str | None] = field(default_factory=dict)
    served: bool = False
    outage_allowed: bool = False

    def check_invariants(self) -> None:
        assert not self.canary or self.verified, "clients reach a candidate that was not verified"
        reached = self.stable_serves or bool(self.canary and self.candidate)
        assert reached or not self.served or self.outage_allowed, "clients no longer reach a server"
        self.served = reached


class MemoryPlatform:
    """A model on a platform whose changes take effect immediately."""

    name, id, location, follows_pointer = "digits", "memory", "in-memory", False

    def __init__(self, world: World, image: str = "serve:1") -> None:
        self.world, self.image = world, image

    def status(self, errors: bool = False) -> Status:  # noqa: ARG002
        world = self.world
        loaded_versions = {servers.version for servers in (world.stable, world.candidate) if servers}
        candidate = world.candidate and world.candidate.model_copy(update={"ready": 1})
        status = Status(stable=world.stable, candidate=candidate, token=world.token, canary=world.canary)
        return status.model_copy(
            update={"stable_serves": world.stable_serves, "loaded_versions": frozenset(loaded_versions)}
        )

    def describe_servers(self, version: int, digest: str, as_last_served: bool = False) -> Servers:
        image = self.world.images.get(version, self.image) if as_last_served else self.image
        fingerprint = f"{version} in {image}"
        return Servers(version=version, digest=digest, fingerprint=fingerprint, image=image)

    def claim(self, token: str, servers: Servers) -> None:
        world = self.world
        if not servers.matches(world.candidate):
            world.candidate, world.verified = servers, False
        world.token, world.canary = token, False
        world.check_invariants()

    def verify(self, servers: Servers, check: Check, token: str | None = None) -> int:
        if token:
            self._check_owner(token)
        elif not servers.matches(self.world.stable):
            raise Superseded("Another rollout changed stable.")
        self._run(servers, self.world.broken if token else self.world.broken | self.world.broken_as_stable)
        check(self)
        if token:
            self.world.verified = True
        return 1

    def request(self, method: str, path: str, body: Any, headers: Any) -> tuple[int, bytes]:  # noqa: ARG002
        """Reply like the servers of the version in the path."""
        version = int(path.split("/")[-1].split(":")[0])
        tracks = (self.world.candidate, self.world.stable)
        images = {servers.image for servers in tracks if servers and servers.version == version}
        return 200, json.dumps({"predictions": [[0.3 if images & self.world.wrong_images else 1.0]]}).encode()

    def open_window(self, token: str) -> "MemoryWindow":
        self._check_owner(token)
        return MemoryWindow(self, token)

    def route_to_candidate(self, token: str) -> None:
        self._check_owner(token)
        self.world.canary = True
        self.world.check_invariants()

    def reconcile(self, servers: Servers | None, observed: Servers | None) -> None:
        world = self.world
        if not any(_same_servers(world.stable, expected) for expected in (servers, observed)):
            raise Superseded("Another rollout changed stable.")
        world.stable = servers
        if servers is None:
            world.stable_serves = False
        else:
            self._run(servers, world.broken | world.broken_as_stable)  # if it fails, stable is unchanged
            world.stable_serves, world.images[servers.version] = True, servers.image
        world.check_invariants()

    def withdraw(self, token: str | None = None) -> int | None:
        world = self.world
        if world.candidate is None or (token and world.token != token):
            return None
        version, world.candidate, world.canary, world.token = world.candidate.version, None, False, ""
        world.served &= world.stable_serves  # clients may have reached only the candidate
        world.check_invariants()
        return version

    def write_heartbeat(self, token: str) -> None:
        assert token

    def _check_owner(self, token: str) -> None:
        if self.world.candidate is None or self.world.token != token:
            raise superseded_error(self.name, self.world.candidate and self.world.candidate.version)

    def _run(self, servers: Servers, broken: set[int]) -> None:
        if servers.version in broken:
            raise DeployError("The quota small refuses the pod.")


class MemoryWindow:
    """The traffic since the window opened: each read counts one more request."""

    def __init__(self, platform: MemoryPlatform, token: str) -> None:
        self._platform, self._token, self._requests = platform, token, 0

    def read(self) -> Traffic:
        self._platform._check_owner(self._token)
        counts = RequestCounts(client=self._requests)
        self._requests += 1
        return Traffic(
            counts,
            counts if self._platform.world.stable_serves else RequestCounts(),
            candidate_responding=True,
        )

    def candidate_share(self) -> float:
        return 0.5

    def send(self, instance: Any) -> None:
        assert instance


def _same_servers(first: Servers | None, second: Servers | None) -> bool:
    return first is second is None or (first is not None and first.matches(second))


class MemoryObjects:
    """The methods of a store's objects that ModelStore uses."""

    url = "memory://models"

    def __init__(self) -> None:
        self._data: dict[str, tuple[bytes, str]] = {}

    def read(self, key: str) -> tuple[bytes, str]:
        if key not in self._data:
            raise NotFoundError(f"There is no {key}.")
        return self._data[key]

    def create(self, key: str, data: bytes) -> None:
        if key in self._data:
            raise ConflictError(f"There is a {key}.")
        self._data[key] = data, "1"

    def replace(self, key: str, data: bytes, generation: str) -> str:
        if self.read(key)[1] != generation:
            raise ConflictError(f"{key} changed.")
        self._data[key] = data, str(int(generation) + 1)
        return self._data[key][1]

    def upload(self, key: str, path: Path) -> None:
        self._data[key] = path.read_bytes(), "1"

    def download(self, key: str, path: Path, _: str | None = None) -> None:
        path.write_bytes(self.read(key)[0])

    def find(self, key: str) -> Entry | None:
        data, generation = self._data.get(key, (None, ""))
        return None if data is None else Entry(key, len(data), 0.0, generation, generation)

    def keys(self, prefix: str) -> list[str]:
        return sorted(key for key in self._data if key.startswith(prefix))

    def folders(self, prefix: str) -> list[str]:
        inside = (key[len(prefix) :] for key in self.keys(prefix))
        return sorted({rest.split("/")[0] for rest in inside if "/" in rest})


class FaultyProxy:
    """Passes the calls of an object through a fault.

    Args:
        target: the object.
        fault: counts the calls and may fail; shared by the objects of a process.
        error: the class of the error that a failing call raises.
    """

    def __init__(self, target: Any, fault: "Fault", error: type[Exception]) -> None:
        self._target, self._fault, self._error = target, fault, error

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._target, name)
        if not callable(attribute) or name == "write_heartbeat":
            return attribute
        return lambda *arguments, **options: self._fault.call(
            partial(attribute, *arguments, **options), self._error("It does not respond.")
        )


@dataclass
class Fault:
    """Disturbs the call number `at`, counted from 1.

    Attributes:
        at: the number of the call.
        failure: `fails before`, `fails after` (only the reply is lost), `killed before`, `killed after`,
            `unreachable` (all later calls fail too) or `concurrent` (`action` before the call).
        action: a concurrent action, such as another rollout.
        calls: the number of calls.
        dead: whether the process was killed.
    """

    at: int
    failure: str
    action: Callable[[], object] = lambda: None
    calls: int = 0
    dead: bool = False

    def call(self, method: Callable[[], Any], error: Exception) -> Any:
        if self.dead:
            raise Killed
        self.calls += 1
        if self.calls < self.at or (self.calls > self.at and self.failure != "unreachable"):
            return method()
        if self.failure == "concurrent":
            self.action()
            return method()
        if self.failure.endswith(" after"):
            method()
        if self.failure.startswith("killed"):
            self.dead = True
            raise Killed
        raise error
