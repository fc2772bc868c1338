"""Moves the champion pointer, updates stable to it, and restores both after a failure.

rollout.py decides when. If other commands move the pointer at the same time, stable follows the last of them.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from modelyard.components.artifacts import Outcome
from modelyard.components.deploy.platforms.base import Check, Servers, ServingPlatform, Superseded
from modelyard.components.deploy.settings import Rollout
from modelyard.components.deploy.verification import PinnedVersion, pin_version, replay_golden_requests
from modelyard.components.errors import (
    ClusterError,
    ConflictError,
    DeployError,
    StoreError,
    UnreachableError,
)
from modelyard.components.store.models import ModelStore
from modelyard.components.store.records import Action, Champion

PAST_TENSE: dict[Action, str] = {"promote": "promoted", "rollback": "rolled back"}
STORE_RETRY_SECONDS = 2.0
CONTINUE_MESSAGE = "Continuing with the rollout."

T = TypeVar("T")


@dataclass
class StableUpdater:
    """Updates stable of one model on one platform; the base of RolloutController.

    `by` is the user or program that the history records, `now` a monotonic clock in seconds.
    """

    platform: ServingPlatform
    models: ModelStore
    rollout: Rollout
    by: str
    log: Callable[[str], None]
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _last_written: Servers | None = field(default=None, init=False)
    """The servers to which this process last changed stable."""
    _pins: dict[int, PinnedVersion] = field(default_factory=dict, init=False)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.platform.name

    # Update ---------------------------------------------------------------------------------------

    def _settle_stable(self) -> None:
        """Update stable to the champion; if the champion cannot run, log the reason and continue."""
        champion, stable = self._read_champion(), self.platform.status().stable
        if champion is None:
            return
        if stable and (stable.version, stable.digest) == (champion.version, champion.digest):
            try:
                self.platform.verify(stable, lambda _: None)  # waits until the servers are ready
                return
            except Superseded:
                pass  # another rollout changed stable
            except DeployError as error:
                self.log(f"{error} {CONTINUE_MESSAGE}")
                return
        version = f"version {stable.version}" if stable else "nothing"
        self.log(f"stable serves {version} and the champion is version {champion.version}: updating stable")
        try:
            self._reconcile()
        except DeployError as error:
            self.log(f"{error} {self._restore(stable)} {CONTINUE_MESSAGE}")

    def _adopt_only_candidate(self, servers: Servers) -> None:
        """Update stable to the candidate's servers if only the candidate serves clients.

        This is the state after the first rollout of a model was killed. If stable cannot run these servers, a
        rollout of the same servers fails, and a rollout of other servers continues.
        """
        status = self.platform.status()
        candidate = status.candidate
        if candidate is None or not (status.canary and candidate.ready) or status.stable_serves:
            return
        self.log(f"only the candidate, version {candidate.version}, serves clients: updating stable to it")
        try:
            self._write_stable(candidate, status.stable, self._pin(candidate.version))
        except Superseded:
            return
        except UnreachableError:
            raise
        except (DeployError, StoreError) as error:
            message = (
                f"Stable of {self.name} cannot run the servers of version {candidate.version}, whose "
                f"candidate still serves clients: {error} {self._restore(status.stable)}"
            )
            if candidate.matches(servers):
                raise DeployError(message) from error
            self.log(f"{message} {CONTINUE_MESSAGE}")

    def _move_pointer(self, version: int, current: int, reason: str, action: Action = "promote") -> Champion:
        """Make a version the champion; raise ConflictError if `current` is not the champion."""
        promote = partial(self.models.promote, self.name, version, reason=reason, by=self.by)
        champion = self._retry_store(lambda: promote(action=action, expected=current))
        if version != current:
            self.log(f"{PAST_TENSE[action]}: version {version} is the champion of {self.name}")
        return champion

    def _follow_pointer(self, servers: Servers, previous: int) -> None:
        """Update stable to the pointer; if this fails, restore pointer and stable."""
        stable = self.platform.status().stable
        try:
            self._reconcile(servers)
        except (ClusterError, DeployError) as error:
            if previous:
                result = self._revert_pointer(stable, servers.version, previous, str(error))
                raise DeployError(f"{error} {result}") from error
            candidate = "" if stable else " Its candidate still serves clients."
            raise DeployError(
                f"{error} There is no earlier champion to go back to. {self._restore(stable)}{candidate} "
                "Correct the cause of the error, then deploy the version again."
            ) from error

    def _reconcile(self, servers: Servers | None = None) -> Champion | None:
        """Update stable until it serves the champion, and return the champion pointer.

        The pointer may move meanwhile. Stable is updated to `servers` if they have the champion's version.

        Raises:
            DeployError: the servers do not run, or fail verification.
        """
        while champion := self._read_champion():
            number = champion.version
            try:
                stable, pin = self.platform.status().stable, self._pin(number)
                matching_servers = servers if servers and servers.version == number else None
                self._write_stable(
                    matching_servers or self._describe_servers(number, champion.digest), stable, pin
                )
            except Superseded:
                continue  # another rollout moved the pointer
            except UnreachableError:
                raise
            except (DeployError, StoreError) as error:
                raise DeployError(
                    f"Stable of {self.name} could not be updated to version {number}: {error}"
                ) from error
            if self._read_champion() == champion:
                break
        return champion

    def _write_stable(self, servers: Servers, observed: Servers | None, pin: PinnedVersion) -> None:
        """Change stable from the observed servers to `servers`, and verify them."""
        self._record_served(servers.version)
        self._last_written = servers
        self.platform.reconcile(servers, observed)
        self.platform.verify(servers, self._golden_check(pin))

    # Restore --------------------------------------------------------------------------------------

    def _revert_pointer(self, stable: Servers | None, version: int, previous: int, cause: str) -> str:
        """Make `previous` the champion again and restore stable; return a sentence about the result."""
        if previous == version:
            return self._restore(stable)
        try:
            self._move_pointer(previous, version, cause, "rollback")
        except ConflictError:
            return self._follow_other_champion()
        except StoreError as error:
            pointer = (
                f"The pointer could not be moved back from version {version} ({error}); "
                f"`modelyard models promote {self.name} {previous} -e ENV` moves it."
            )
        else:
            pointer = f"Version {previous} is the champion again."
        return f"{pointer} {self._restore(stable)}"

    def _follow_other_champion(self) -> str:
        """Update stable to the champion of another command; return a sentence about the result."""
        sentence = "Another command moved the pointer."
        try:
            champion = self._reconcile()
        except (ClusterError, DeployError) as error:
            return f"{sentence} {error}"
        return f"{sentence} Stable serves version {champion.version}." if champion else sentence

    def _restore(self, previous: Servers | None) -> str:
        """Restore exactly the servers that stable had before; return a sentence about the result."""
        version = f"version {previous.version}" if previous else "nothing"
        if previous and (self._last_written is None or self._last_written.matches(previous)):
            return f"Stable still has the servers of {version}."
        try:
            self.platform.reconcile(previous, self._last_written)
        except Superseded:
            return "Another rollout changed stable."
        except (ClusterError, DeployError) as error:
            return f"Stable could not be restored to {version} and keeps the servers that run: {error}"
        return f"Stable serves {version} as before." if previous else "Stable serves nothing, as before."

    # Store and platform ---------------------------------------------------------------------------

    def _read_champion(self) -> Champion | None:
        """Return the champion pointer; wait up to `rollout.store_timeout` for the store."""
        return self._retry_store(lambda: self.models.champion(self.name))

    def _champion_version(self) -> int:
        """Return the version of the champion, or 0 if there is none."""
        champion = self._read_champion()
        return champion.version if champion else 0

    def _find_champion(self) -> int | None:
        """Return the champion's version, 0 for none; None if the store cannot be read."""
        with suppress(StoreError):
            champion = self.models.champion(self.name)
            return champion.version if champion else 0
        return None

    def _find_promotion(self, version: int) -> Outcome | None:
        """Return the outcome `promote` if the version is the champion, else None."""
        with suppress(StoreError):
            champion = self.models.champion(self.name)
            if champion and champion.version == version:
                return Outcome(version=version, decision="promote", reason=champion.reason)
        return None

    def _pin(self, version: int) -> PinnedVersion:
        if version not in self._pins:
            self._pins[version] = self._retry_store(lambda: pin_version(self.models, self.name, version))
        return self._pins[version]

    def _describe_servers(self, version: int, digest: str, as_last_served: bool = False) -> Servers:
        return self._retry_store(lambda: self.platform.describe_servers(version, digest, as_last_served))

    def _golden_check(self, pin: PinnedVersion) -> Check:
        tolerance = self.rollout.golden_tolerance
        return lambda server: replay_golden_requests(server, self.name, pin, tolerance)

    def _record_served(self, *next_versions: int) -> None:
        """Record the served versions in the store, for gc in other environments; ignore errors."""
        with suppress(ClusterError, StoreError):
            if platform_id := self.platform.id:
                versions = self.platform.status().loaded_versions.union(next_versions)
                self.models.record_served(self.name, platform_id, self.platform.location, versions)

    def _retry_store(self, action: Callable[[], T]) -> T:
        """Return the result of `action`; repeat it while the store does not respond.

        Raises:
            UnreachableError: the store did not respond for `rollout.store_timeout` seconds.
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
            self.sleep(STORE_RETRY_SECONDS)
