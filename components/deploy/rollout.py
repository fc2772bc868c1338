"""The rollout of a version, in phases that may be killed at any point and run again.

1. settle     update stable to the champion, if that version can run
2. claim      create or take over the candidate; clients reach only stable
3. verify     send the golden requests, and compare the predictions with those that evaluate recorded
4. analyze    also route clients to the candidate, and compare its failures and latency with stable
5. promote    move the champion pointer by compare-and-swap, update stable, delete the candidate

A rollback skips phases 1 and 4. It verifies a server of the earlier version before that version becomes
champion. A rollout of the champion with another image or other settings has all phases, but does not move the
pointer.

After moving the pointer, a rollout updates stable and reads the pointer again. If stable cannot be updated,
the rollout restores pointer and stable. Of two concurrent rollouts, the later one takes over the candidate;
the earlier one detects this and ends. The platform (platforms/base.py) loads versions and routes clients.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import NoReturn, TypeVar
from uuid import uuid4

from modelyard.components.artifacts import Outcome
from modelyard.components.deploy.canary_analysis import analyze
from modelyard.components.deploy.platforms import base
from modelyard.components.deploy.platforms.base import (
    Check,
    Servers,
    ServingPlatform,
    Superseded,
    superseded_error,
)
from modelyard.components.deploy.settings import Rollout
from modelyard.components.deploy.verification import (
    PinnedVersion,
    hold_outcome,
    pin_version,
    replay_golden_requests,
)
from modelyard.components.errors import (
    CancelledError,
    ClusterError,
    ConflictError,
    DamagedError,
    DeployError,
    ModelyardError,
    NotFoundError,
    StoreError,
    UnreachableError,
    describe,
)
from modelyard.components.signals import ignore_sigterm, raise_on_sigterm
from modelyard.components.store.models import ModelStore
from modelyard.components.store.records import Action, Champion

PAST_TENSE: dict[Action, str] = {"promote": "promoted", "rollback": "rolled back"}
STORE_RETRY_SECONDS = 2.0
CONTINUES = "Continuing with the rollout."

T = TypeVar("T")


@dataclass
class RolloutController:
    """Rolls out the versions of one model on one platform.

    Args:
        platform: the serving platform of the model.
        models: the model store.
        rollout: the section `rollout`.
        by: the user or program that the history records.
        log: logs a message.
        now: returns the time of a monotonic clock in seconds.
        sleep: waits for a number of seconds.
    """

    platform: ServingPlatform
    models: ModelStore
    rollout: Rollout
    by: str
    log: Callable[[str], None]
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _last_written: Servers | None = field(default=None, init=False)
    """The servers to which this controller last changed stable."""
    _pins: dict[int, PinnedVersion] = field(default_factory=dict, init=False)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.platform.name

    # Commands ------------------------------------------------------------------------------------

    def roll_out(self, pinned: PinnedVersion, expected: int | None, reason: str) -> Outcome:
        """Roll out a version and return the outcome.

        Args:
            pinned: the version.
            expected: the champion that it was compared with; 0 if there was none, None to accept any.
            reason: the reason of the promotion.

        Raises:
            DeployError: the version was not promoted; the message contains the reason and the served version.
            CancelledError: the process received SIGTERM; the candidate is withdrawn.
            ClusterError: the cluster refuses a request or does not respond.
            StoreError: the store does not respond, or is damaged.
        """
        token, version = uuid4().hex, pinned.version
        self._pins[version] = pinned
        with self._session(token):
            champion = self._read_champion()
            previous = champion.version if champion else 0
            try:
                servers = self._describe_servers(version, pinned.digest)
                self._adopt_only_candidate(servers)
                if champion and previous == version and servers.matches(self.platform.status().stable):
                    self.platform.verify(servers, self._golden_check(pinned))
                    self._delete_unneeded_candidate(servers)
                    return Outcome(version=version, decision="promote", reason=reason)
                if previous != version:
                    self._settle_stable()
                    champion = self._read_champion()
                    previous = champion.version if champion else 0
                if expected not in (None, previous) and previous != version:
                    self._delete_unneeded_candidate(servers)
                    return hold_outcome(version, expected or 0, previous)
                self.platform.claim(token, servers)
                self.log(f"candidate: version {version} of {self.name}")
                self._record_served()
                self._verify_candidate(servers, pinned, token)
                summary = self._analyze(pinned, token)
                self._check_owner(token)
                self._move_pointer(version, previous, f"{reason}; {summary}" if summary else reason)
            except (Exception, KeyboardInterrupt) as error:
                with ignore_sigterm():
                    return self._handle_failure(version, expected, previous, token, error)
            self._finish(servers, previous, token)
            return Outcome(version=version, decision="promote", reason=reason)

    def promote(self, pinned: PinnedVersion, reason: str) -> Champion:
        """Verify a version in a server and make it the champion; stable is not updated.

        Raises:
            DeployError: the server does not run, or fails verification.
        """
        servers = self._describe_servers(pinned.version, pinned.digest)
        self.platform.verify(servers, self._golden_check(pinned), uuid4().hex)
        try:
            self.models.champion(self.name)
        except DamagedError as error:
            state = "missing" if isinstance(error.__cause__, NotFoundError) else "damaged"
            self.log(f"champion.json of {self.name} is {state} and is written again")
        return self.models.promote(self.name, pinned.version, reason=reason, by=self.by)

    def promote_candidate(self, reason: str) -> Outcome:
        """Verify the candidate and promote it without further analysis.

        Stable is updated to exactly the servers of the candidate.

        Raises:
            DeployError: there is no candidate, it does not run, or it fails verification.
        """
        status = self.platform.status()
        if (servers := status.candidate) is None:
            raise DeployError(
                f"{self.name} has no candidate to promote. `modelyard deploy {self.name} VERSION -e ENV` "
                "starts a rollout."
            )
        pinned, champion = self._pin(servers.version), self._read_champion()
        previous = champion.version if champion else 0
        with self._session(status.token):  # the candidate's rollout notices the promotion
            self._verify_candidate(servers, pinned, status.token)
            self._check_owner(status.token)  # the candidate's rollout may have rejected it
            self._move_pointer(servers.version, previous, reason)
            self._finish(servers, previous, status.token)
        return Outcome(version=servers.version, decision="promote", reason=reason)

    def abort(self, reason: str) -> int | None:
        """Withdraw the candidate of any rollout; return its version, or None if there is no candidate."""
        version = self.platform.withdraw()
        if version and not self._find_promotion(version):
            self.models.record_attempt(self.name, version, reason=f"not promoted: {reason}", by=self.by)
        self._record_served()
        return version

    def rollback(self, to: int | None, reason: str) -> Champion:
        """Make an earlier version the champion again, update stable and delete the candidate.

        The version is first verified as a candidate that receives no traffic. The candidate has the servers
        with which stable last served the version, if the platform has recorded them.

        Raises:
            NotFoundError: there is no earlier champion, or no version `to`.
            ConflictError: another command moved the pointer.
            DeployError: files are damaged, or the servers do not run or fail verification; pointer and stable
                are unchanged.
            CancelledError: the process received SIGTERM.
        """
        champion = self._read_champion()
        if champion is None or (target := to or champion.previous) is None:
            return self.models.rollback(self.name, to, reason=reason, by=self.by)  # raises
        previous, pinned, token = champion.version, self._pin(target), uuid4().hex
        with self._session(token):
            try:
                servers = self._describe_servers(target, pinned.digest, as_last_served=True)
                self._adopt_only_candidate(servers)
                if servers.matches(self.platform.status().stable):
                    self.platform.verify(servers, self._golden_check(pinned))
                else:
                    self.platform.claim(token, servers)
                    self._record_served()
                    self._verify_candidate(servers, pinned, token)
                champion = self._move_pointer(target, previous, reason, "rollback")
            except (Exception, KeyboardInterrupt) as error:
                with ignore_sigterm():
                    self._withdraw_if_stable_serves(token)
                    self._raise_failure(target, previous, token, error)
            self._finish(servers, previous, None)
        return champion

    # Phases --------------------------------------------------------------------------------------

    def _adopt_only_candidate(self, deployed: Servers) -> None:
        """Update stable to the candidate's servers if only the candidate serves clients.

        This is the state after the first rollout of a model was killed. If stable cannot run these servers, a
        rollout of the same servers fails, and a rollout of other servers continues.
        """
        status = self.platform.status()
        candidate = status.candidate
        if candidate is None or not (status.canary and candidate.ready) or status.stable_serves:
            return
        self.log(f"clients reach only candidate version {candidate.version}: stable gets its servers")
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
            if candidate.matches(deployed):
                raise DeployError(message) from error
            self.log(f"{message} {CONTINUES}")

    def _settle_stable(self) -> None:
        """Update stable to the champion; if the champion cannot run, log the reason and continue."""
        champion, stable = self._read_champion(), self.platform.status().stable
        if champion is None:
            return
        try:
            if stable and (stable.version, stable.digest) == (champion.version, champion.digest):
                with suppress(Superseded):
                    self.platform.verify(stable, lambda _: None)
                    return
            served = f"version {stable.version}" if stable else "nothing"
            self.log(
                f"stable serves {served} and the champion is version {champion.version}: updating stable"
            )
            try:
                self._reconcile()
            except DeployError as error:
                raise DeployError(f"{error} {self._restore(stable)}") from error
        except DeployError as error:
            self.log(f"{error} {CONTINUES}")

    def _verify_candidate(self, servers: Servers, pinned: PinnedVersion, token: str) -> None:
        """Wait for the candidate's servers and verify them."""
        count = self.platform.verify(servers, self._golden_check(pinned), token)
        if not count:
            raise DeployError("The candidate's servers ended before they were verified. Deploy again.")
        golden = _count(len(pinned.golden.instances), "golden request")
        self.log(f"verified: {golden}, {_count(count, 'candidate server')}")

    def _analyze(self, pinned: PinnedVersion, token: str) -> str:
        """Analyze the candidate and return the summary, or an empty string if the platform has no canary."""
        window = self.platform.open_window(token)
        if window is None:
            return ""
        self.platform.route_to_candidate(token)
        seconds = self.rollout.bake_seconds
        self.log(f"canary: clients of {self.name} reach the candidate too; analysis for {seconds:g} s")
        summary = f"canary analysis: {analyze(self.name, pinned, window, self.rollout, self.now, self.sleep)}"
        self.log(summary)
        return summary

    def _check_owner(self, token: str) -> None:
        """Raise Superseded if the candidate belongs to another rollout."""
        status = self.platform.status()
        if status.candidate is None or status.token != token:
            raise superseded_error(self.name, status.candidate.version if status.candidate else None)

    def _move_pointer(self, version: int, current: int, reason: str, action: Action = "promote") -> Champion:
        """Make a version the champion; raise ConflictError if `current` is not the champion."""
        promote = partial(self.models.promote, self.name, version, reason=reason, by=self.by)
        champion = self._retry_store(lambda: promote(action=action, expected=current))
        if version != current:
            self.log(f"{PAST_TENSE[action]}: version {version} is the champion of {self.name}")
        return champion

    def _finish(self, servers: Servers, previous: int, token: str | None) -> None:
        """Update stable to the pointer and delete the candidate.

        `previous` is the champion before the promotion, or 0 if there was none. If stable cannot be updated,
        the candidate is deleted, unless it is the only server for clients.
        """
        try:
            self._follow_pointer(servers, previous)
            with ignore_sigterm():
                self.platform.withdraw(token)
        except (Exception, KeyboardInterrupt) as error:
            self._withdraw_if_stable_serves(token)
            if isinstance(error, (CancelledError, ClusterError, StoreError)):
                raise type(error)(f"{error} {_unfinished_message(servers.version)}") from error
            raise
        if not self.platform.follows_pointer:
            self.log(f"stable serves version {servers.version}; the candidate is deleted")

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
                "Correct this, then deploy the version again."
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
                stable, pinned = self.platform.status().stable, self._pin(number)
                matching = servers if servers and servers.version == number else None
                self._write_stable(
                    matching or self._describe_servers(number, champion.digest), stable, pinned
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

    def _write_stable(self, servers: Servers, observed: Servers | None, pinned: PinnedVersion) -> None:
        """Change stable from the observed servers to `servers`, and verify them."""
        self._record_served(servers.version)
        self._last_written = servers
        self.platform.reconcile(servers, observed)
        self.platform.verify(servers, self._golden_check(pinned))

    # Failures ------------------------------------------------------------------------------------

    def _handle_failure(
        self, version: int, expected: int | None, previous: int, token: str, error: BaseException
    ) -> Outcome:
        """Withdraw the candidate; return the outcome of a failed rollout, or raise the error."""
        # before reading the store, which may not respond before this process is killed
        self._withdraw_if_stable_serves(token)
        if isinstance(error, ConflictError):
            self.platform.withdraw(token)
            return hold_outcome(version, previous if expected is None else expected, self._find_champion())
        # A user may have promoted it, or this rollout before the process received SIGTERM.
        promoted = self._find_promotion(version) if previous != version else None
        if promoted and isinstance(error, DeployError):
            return promoted
        if isinstance(error, Superseded):
            return Outcome(version=version, decision="hold", reason=str(error))
        return self._raise_failure(version, previous, token, error)

    def _raise_failure(self, version: int, previous: int, token: str, error: BaseException) -> NoReturn:
        """Withdraw the candidate unless it is the champion, and raise the error.

        The message of the error also contains the served version.
        """
        promoted = previous != version and self._find_promotion(version)
        state = (
            _unfinished_message(version)
            if promoted
            else self._withdraw_and_record(version, previous, token, error)
        )
        if isinstance(error, ModelyardError):
            raise type(error)(f"{error} {state}") from error
        raise error

    def _withdraw_if_stable_serves(self, token: str | None) -> None:
        """Withdraw the candidate, unless it is the only server for clients."""
        with ignore_sigterm(), suppress(ClusterError, StoreError):
            if self.platform.status().stable_serves:
                self.platform.withdraw(token)

    def _withdraw_and_record(self, version: int, previous: int, token: str, error: BaseException) -> str:
        """Withdraw the candidate and record the attempt, if possible.

        Return a sentence that contains the served version.
        """
        verb = "deployed" if version == previous else "promoted"
        cause = str(error) if isinstance(error, ModelyardError) else describe(error)
        cause = "it was interrupted" if isinstance(error, KeyboardInterrupt) else cause
        self.log(f"rolling back: {cause}")
        stable = "stable is unchanged"
        with ignore_sigterm():
            with suppress(ClusterError, StoreError):
                self.platform.withdraw(token)
                servers = self.platform.status().stable
                serves = "the champion is" if self.platform.follows_pointer else "stable serves"
                stable = f"{serves} version {servers.version} as before" if servers else "there is no stable"
            with suppress(StoreError):
                self.models.record_attempt(self.name, version, reason=f"not {verb}: {cause}", by=self.by)
        return f"Version {version} was not {verb}, and {stable}."

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
        moved = "Another command moved the pointer."
        try:
            champion = self._reconcile()
        except (ClusterError, DeployError) as error:
            return f"{moved} {error}"
        return f"{moved} Stable serves version {champion.version}." if champion else moved

    def _restore(self, previous: Servers | None) -> str:
        """Restore exactly the servers that stable had before; return a sentence about the result."""
        served = f"version {previous.version}" if previous else "nothing"
        if previous and (self._last_written is None or self._last_written.matches(previous)):
            return f"Stable still has the servers of {served}."
        try:
            self.platform.reconcile(previous, self._last_written)
        except Superseded:
            return "Another rollout changed stable."
        except (ClusterError, DeployError) as error:
            return f"Stable could not be restored to {served} and keeps the servers that run: {error}"
        return f"Stable serves {served} as before." if previous else "Stable serves nothing, as before."

    def _delete_unneeded_candidate(self, served: Servers) -> None:
        """Delete the candidate if it is abandoned or matches the servers `served`.

        If no server of stable is ready, the candidate may be the only server for clients and is not deleted.
        """
        status = self.platform.status()
        if (
            status.candidate
            and status.stable_serves
            and (served.matches(status.candidate) or status.abandoned)
        ):
            self.log(f"deleting the unneeded candidate of version {status.candidate.version}")
            self.platform.withdraw(status.token)

    # Store and platform --------------------------------------------------------------------------

    def _read_champion(self) -> Champion | None:
        """Return the champion pointer; wait up to `rollout.store_timeout` for the store."""
        return self._retry_store(lambda: self.models.champion(self.name))

    def _pin(self, version: int) -> PinnedVersion:
        if version not in self._pins:
            self._pins[version] = self._retry_store(lambda: pin_version(self.models, self.name, version))
        return self._pins[version]

    def _describe_servers(self, version: int, digest: str, as_last_served: bool = False) -> Servers:
        return self._retry_store(lambda: self.platform.describe_servers(version, digest, as_last_served))

    def _golden_check(self, pinned: PinnedVersion) -> Check:
        tolerance = self.rollout.golden_tolerance
        return lambda server: replay_golden_requests(server, self.name, pinned, tolerance)

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

    def _record_served(self, *loading: int) -> None:
        """Record the served versions in the store, for gc in other environments; ignore errors."""
        with suppress(ClusterError, StoreError):
            if platform_id := self.platform.id:
                versions = self.platform.status().loaded.union(loading)
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

    # Process -------------------------------------------------------------------------------------

    @contextmanager
    def _session(self, token: str | None) -> Iterator[None]:
        """Handle SIGTERM and write heartbeats during a rollout.

        SIGTERM raises CancelledError. Heartbeats are written only if there is a token. They distinguish the
        candidate of a running rollout from that of a killed one, and are not a lock. At the end, the served
        versions are recorded.
        """
        end = threading.Event()

        def beat(token: str) -> None:
            while not end.wait(base.HEARTBEAT_SECONDS):
                self.platform.write_heartbeat(token)

        if token:
            threading.Thread(target=beat, args=(token,), name="heartbeat", daemon=True).start()
        try:
            with raise_on_sigterm():
                yield
        finally:
            end.set()
            self._record_served()


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _unfinished_message(version: int) -> str:
    return f"Version {version} is the champion; deploy it again to update stable."
