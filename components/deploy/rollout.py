"""The rollout of a version: an order of steps that may be killed anywhere and started again.

1. settle     stable is brought to the champion pointer, if that version can run
2. claim      the candidate becomes this rollout's; clients reach stable alone
3. verify     the candidate, which no client reaches, answers the golden requests as evaluate saw
4. analyze    clients reach the candidate too, and its answers are judged
5. promote    the pointer moves by compare-and-swap, then stable follows, then the candidate goes

A rollback takes the same way without the first and the fourth step: no version becomes the champion before
a server of it has answered the golden requests. The champion whose servers are to change (another image,
other settings) takes all steps; the pointer stays.

Whoever moves the pointer brings stable to it, and looks at the pointer again; where stable cannot follow,
both go back. Of two rollouts at once, the later one takes the candidate over, and the earlier one ends when
it sees that. What is loaded where, and how clients are led to it, is the platform's (platforms/base.py).
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
    DeployError,
    ModelyardError,
    StoreError,
    UnreachableError,
    describe,
)
from modelyard.components.signals import ignore_sigterm, raise_on_sigterm
from modelyard.components.store.models import ModelStore
from modelyard.components.store.records import Action, Champion

PAST_TENSE: dict[Action, str] = {"promote": "promoted", "rollback": "rolled back"}
STORE_RETRY_SECONDS = 2.0
CONTINUES = "Going on: a version that runs takes its place."

T = TypeVar("T")


@dataclass
class RolloutController:
    """Rolls out the versions of one model on one platform.

    Args:
        platform: what serves the model.
        models: the store.
        rollout: the thresholds.
        by: who asks, for the history.
        log: takes each sentence about the progress.
        now: the monotonic clock.
        sleep: waits so many seconds of it.
    """

    platform: ServingPlatform
    models: ModelStore
    rollout: Rollout
    by: str
    log: Callable[[str], None]
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _last_written: Servers | None = field(default=None, init=False)
    """What this controller last turned stable into."""
    _pins: dict[int, PinnedVersion] = field(default_factory=dict, init=False)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.platform.name

    # The commands --------------------------------------------------------------------------------

    def roll_out(self, pinned: PinnedVersion, expected: int | None, reason: str) -> Outcome:
        """Roll out a version: make it the champion, or say why not.

        Args:
            pinned: the version.
            expected: the champion that it was compared with, 0 for none; None for the present one.
            reason: why it is promoted.

        Raises:
            DeployError: it was rolled back; the reason, and what serves now, in a sentence or two.
            CancelledError: the process got SIGTERM, and took the candidate from clients.
            ClusterError: the cluster refuses it, or does not answer.
            StoreError: the store does not answer, or is not what it should be.
        """
        token, version = uuid4().hex, pinned.version
        self._pins[version] = pinned
        with self._session(token):
            champion = self._read_champion()
            before = champion.version if champion else 0
            try:
                servers = self._describe_servers(version, pinned.digest)
                self._adopt_only_candidate(servers)
                if champion and before == version and servers.matches(self.platform.status().stable):
                    self.platform.verify(servers, self._golden_check(pinned))
                    self._delete_unneeded_candidate(servers)
                    return Outcome(version=version, decision="promote", reason=reason)
                if before != version:
                    self._settle_stable()
                    champion = self._read_champion()
                    before = champion.version if champion else 0
                if expected not in (None, before) and before != version:
                    self._delete_unneeded_candidate(servers)
                    return hold_outcome(version, expected, f"it is version {before or 'none'} now")
                self.platform.claim(token, servers)
                self.log(f"candidate: version {version} of {self.name}")
                self._record_served()
                self._verify_candidate(servers, pinned, token)
                summary = self._analyze(pinned, token)
                self._check_owner(token)
                self._move_pointer(version, before, f"{reason}; {summary}" if summary else reason)
            except (Exception, KeyboardInterrupt) as error:
                with ignore_sigterm():
                    return self._handle_failure(version, expected, before, token, error)
            self._finish(servers, before, token)
            return Outcome(version=version, decision="promote", reason=reason)

    def promote(self, pinned: PinnedVersion, reason: str) -> Champion:
        """Make a version the champion that running servers follow, once a server of it was verified.

        Raises:
            DeployError: it does not run, or answers otherwise than evaluate saw.
        """
        servers = self._describe_servers(pinned.version, pinned.digest)
        self.platform.verify(servers, self._golden_check(pinned), uuid4().hex)
        return self.models.promote(self.name, pinned.version, reason=reason, by=self.by)

    def promote_candidate(self, reason: str) -> Outcome:
        """Promote the candidate without further analysis; it answers the golden requests first.

        Stable gets exactly its servers.

        Raises:
            DeployError: there is none, it does not run, or it answers otherwise than evaluate saw.
        """
        status = self.platform.status()
        if (servers := status.candidate) is None:
            raise DeployError(
                f"{self.name} has no candidate to promote. `modelyard deploy {self.name} VERSION -e ENV` "
                "makes one."
            )
        pinned, champion = self._pin(servers.version), self._read_champion()
        before = champion.version if champion else 0
        with self._session(status.token):  # its own rollout sees in the end that it is promoted
            self._verify_candidate(servers, pinned, status.token)
            self._check_owner(status.token)  # its own rollout may have rejected it meanwhile
            self._move_pointer(servers.version, before, reason)
            self._finish(servers, before, status.token)
        return Outcome(version=servers.version, decision="promote", reason=reason)

    def abort(self, reason: str) -> int | None:
        """Take the candidate from clients, whoever's it is; return its version, None when there is none."""
        version = self.platform.withdraw()
        if version and not self._promoted_meanwhile(version):
            self.models.record_attempt(self.name, version, reason=f"not promoted: {reason}", by=self.by)
        self._record_served()
        return version

    def rollback(self, to: int | None, reason: str) -> Champion:
        """Make an earlier version the champion again and bring stable to it; a candidate goes.

        Stable gets the servers with which it served that version, as far as the platform remembers them,
        once they answered the golden requests as a candidate that no client reaches.

        Raises:
            NotFoundError: there is none, or no version `to`.
            ConflictError: the pointer was moved by another command meanwhile.
            DeployError: its files are damaged, its servers do not run, or answer wrongly; pointer and stable
                are as before.
            CancelledError: the process got SIGTERM.
        """
        champion = self._read_champion()
        if champion is None or (target := to or champion.previous) is None:
            return self.models.rollback(self.name, to, reason=reason, by=self.by)  # raises
        before, pinned, token = champion.version, self._pin(target), uuid4().hex
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
                champion = self._move_pointer(target, before, reason, "rollback")
            except (Exception, KeyboardInterrupt) as error:
                with ignore_sigterm():
                    self._withdraw_if_stable_serves(token)
                    self._raise_failure(target, before, token, error)
            self._finish(servers, before, None)
        return champion

    # The steps -----------------------------------------------------------------------------------

    def _adopt_only_candidate(self, deployed: Servers) -> None:
        """Give stable the candidate's servers where clients reach nothing else: a first rollout was killed.

        Then that candidate can go, whatever is deployed. If stable cannot run them, the same servers are
        not deployed again, and others take their place.
        """
        status = self.platform.status()
        only = status.candidate
        if only is None or not (status.canary and only.ready) or status.stable_serves:
            return
        self.log(f"clients reach only the candidate of version {only.version}: stable gets its servers")
        try:
            self._write_stable(only, status.stable, self._pin(only.version))
        except Superseded:
            return
        except UnreachableError:
            raise
        except (DeployError, StoreError) as error:
            message = (
                f"Stable of {self.name} cannot run the servers of version {only.version}, whose candidate "
                f"goes on answering clients: {error} {self._restore(status.stable)}"
            )
            if only.matches(deployed):
                raise DeployError(message) from error
            self.log(f"{message} {CONTINUES}")

    def _settle_stable(self) -> None:
        """Bring stable to the champion; one that cannot run keeps no other version from clients."""
        champion, stable = self._read_champion(), self.platform.status().stable
        if champion is None:
            return
        try:
            if stable and (stable.version, stable.digest) == (champion.version, champion.digest):
                with suppress(Superseded):
                    self.platform.verify(stable, lambda _: None)  # with the servers that it has
                    return
            serves = f"version {stable.version}" if stable else "nothing"
            self.log(
                f"stable serves {serves} and the champion is version {champion.version}: bringing it there"
            )
            try:
                self._reconcile()
            except DeployError as error:
                raise DeployError(f"{error} {self._restore(stable)}") from error
        except DeployError as error:
            self.log(f"{error} {CONTINUES}")

    def _verify_candidate(self, servers: Servers, pinned: PinnedVersion, token: str) -> None:
        """Wait for the candidate and compare its answers with what evaluate saw."""
        count = self.platform.verify(servers, self._golden_check(pinned), token)
        if not count:
            raise DeployError(
                "The candidate's servers were gone before they could be verified. Deploy again."
            )
        self.log(f"verified: {len(pinned.golden.instances)} golden requests, {count} candidate(s)")

    def _analyze(self, pinned: PinnedVersion, token: str) -> str:
        """Judge the candidate among clients; return by what, empty where clients reach no candidate."""
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
        """Raise Superseded if the candidate is not of this rollout any more."""
        status = self.platform.status()
        if status.candidate is None or status.token != token:
            raise superseded_error(self.name, status.candidate.version if status.candidate else None)

    def _move_pointer(self, version: int, current: int, reason: str, action: Action = "promote") -> Champion:
        """Make the version the champion; a ConflictError says that `current` is not the champion any more."""
        promote = partial(self.models.promote, self.name, version, reason=reason, by=self.by)
        champion = self._retry_store(lambda: promote(action=action, expected=current))
        if version != current:
            self.log(f"{PAST_TENSE[action]}: version {version} is the champion of {self.name}")
        return champion

    def _finish(self, servers: Servers, before: int, token: str | None) -> None:
        """Bring stable to the pointer, which named `before` (0: none) until now, and delete the candidate.

        The candidate also goes where stable cannot follow.
        """
        try:
            self._follow_pointer(servers, before)
            with ignore_sigterm():
                self.platform.withdraw(token)
        except (Exception, KeyboardInterrupt) as error:
            self._withdraw_if_stable_serves(token)
            if isinstance(error, (CancelledError, ClusterError, StoreError)):
                raise type(error)(f"{error} {_unfinished_message(servers.version)}") from error
            raise
        if not self.platform.follows_pointer:
            self.log(f"stable serves version {servers.version}; the candidate is gone")

    def _follow_pointer(self, servers: Servers, before: int) -> None:
        """Bring stable to the pointer, or both back."""
        stable = self.platform.status().stable
        try:
            self._reconcile(servers)
        except (ClusterError, DeployError) as error:
            if before:
                how = self._revert_pointer(stable, servers.version, before, str(error))
                raise DeployError(f"{error} {how}") from error
            kept = "" if stable else " Its candidate goes on answering clients."
            raise DeployError(
                f"{error} It is the first champion, so there is none to go back to. {self._restore(stable)}"
                f"{kept} Deploy it again when that is mended."
            ) from error

    def _reconcile(self, servers: Servers | None = None) -> Champion | None:
        """Bring stable to the champion pointer, until the pointer does not move any more; return the pointer.

        It gets `servers` if they are of that version.

        Raises:
            DeployError: they do not run, or answer otherwise than evaluate saw.
        """
        while champion := self._read_champion():
            number = champion.version
            try:
                stable, pinned = self.platform.status().stable, self._pin(number)
                fitting = servers if servers and servers.version == number else None
                self._write_stable(fitting or self._describe_servers(number, champion.digest), stable, pinned)
            except Superseded:
                continue  # by whoever moved the pointer
            except UnreachableError:
                raise
            except (DeployError, StoreError) as error:
                raise DeployError(
                    f"Stable of {self.name} could not be brought to version {number}: {error}"
                ) from error
            if self._read_champion() == champion:
                break
        return champion

    def _write_stable(self, servers: Servers, observed: Servers | None, pinned: PinnedVersion) -> None:
        """Turn stable from what was observed into these servers, and verify them."""
        self._record_served(servers.version)
        self._last_written = servers
        self.platform.reconcile(servers, observed)
        self.platform.verify(servers, self._golden_check(pinned))

    # The ways back -------------------------------------------------------------------------------

    def _handle_failure(
        self, version: int, expected: int | None, before: int, token: str, error: BaseException
    ) -> Outcome:
        """Take the candidate from clients, and return how a failed rollout ended, or raise it."""
        # first: the store may not answer for longer than this process has
        self._withdraw_if_stable_serves(token)
        if isinstance(error, ConflictError):
            self.platform.withdraw(token)
            return hold_outcome(version, expected, str(error))
        # It may be promoted: by hand, or the process got SIGTERM just after the pointer had moved.
        promoted = self._promoted_meanwhile(version) if before != version else None
        if promoted and isinstance(error, DeployError):
            return promoted
        if isinstance(error, Superseded):
            return Outcome(version=version, decision="hold", reason=str(error))
        return self._raise_failure(version, before, token, error)

    def _raise_failure(self, version: int, before: int, token: str, error: BaseException) -> NoReturn:
        """Withdraw the candidate unless it is the champion, and raise the error with what serves now."""
        promoted = before != version and self._promoted_meanwhile(version)
        state = (
            _unfinished_message(version)
            if promoted
            else self._withdraw_and_record(version, before, token, error)
        )
        if isinstance(error, ModelyardError):
            raise type(error)(f"{error} {state}") from error
        raise error

    def _withdraw_if_stable_serves(self, token: str | None) -> None:
        """Withdraw the candidate, unless it is all that clients have."""
        with ignore_sigterm(), suppress(ClusterError, StoreError):
            if self.platform.status().stable_serves:
                self.platform.withdraw(token)

    def _withdraw_and_record(self, version: int, before: int, token: str, error: BaseException) -> str:
        """Withdraw the candidate and record why, as far as that is possible; return what serves now."""
        what = "deployed" if version == before else "promoted"
        why = str(error) if isinstance(error, ModelyardError) else describe(error)
        why = "it was interrupted" if isinstance(error, KeyboardInterrupt) else why
        self.log(f"rolling back: {why}")
        stable = "stable was not touched"
        with ignore_sigterm():
            with suppress(ClusterError, StoreError):
                self.platform.withdraw(token)
                found = self.platform.status().stable
                serves = "the champion is" if self.platform.follows_pointer else "stable serves"
                stable = f"{serves} version {found.version} as before" if found else "there is no stable"
            with suppress(StoreError):
                self.models.record_attempt(self.name, version, reason=f"not {what}: {why}", by=self.by)
        return f"Version {version} was not {what}, and {stable}."

    def _revert_pointer(self, stable: Servers | None, version: int, before: int, why: str) -> str:
        """Make `before` the champion again and stable what it was; return how that went."""
        if before == version:
            return self._restore(stable)
        try:
            self._move_pointer(before, version, why, "rollback")
        except ConflictError:
            return self._follow_other_champion()
        except StoreError as error:
            pointer = (
                f"The pointer could not be moved back and still names version {version} ({error}); "
                f"`modelyard models promote {self.name} {before} -e ENV` moves it."
            )
        else:
            pointer = f"Version {before} is the champion again."
        return f"{pointer} {self._restore(stable)}"

    def _follow_other_champion(self) -> str:
        """Bring stable to what another command made the champion meanwhile; return how that went."""
        moved = "Another command moved the pointer meanwhile."
        try:
            champion = self._reconcile()
        except (ClusterError, DeployError) as error:
            return f"{moved} {error}"
        return f"{moved} Stable serves version {champion.version}." if champion else moved

    def _restore(self, before: Servers | None) -> str:
        """Give stable the exact servers that it had before; return how that went."""
        serves = f"version {before.version}" if before else "nothing"
        if before and (self._last_written is None or self._last_written.matches(before)):
            return f"Stable goes on with the servers of {serves} that run."
        try:
            self.platform.reconcile(before, self._last_written)
        except Superseded:
            return "Another rollout brings stable to another version."
        except (ClusterError, DeployError) as error:
            return f"Stable could not be brought back to {serves}, and goes on with what runs: {error}"
        return f"Stable serves {serves} as before." if before else "Stable serves nothing, as before."

    def _delete_unneeded_candidate(self, served: Servers) -> None:
        """Delete a candidate of these servers, which stable has, or an abandoned one.

        It stays where stable answers no client: it may be all that they have.
        """
        status = self.platform.status()
        if (
            status.candidate
            and status.stable_serves
            and (served.matches(status.candidate) or status.abandoned)
        ):
            self.log(
                f"deleting the candidate of version {status.candidate.version}, which is not needed any more"
            )
            self.platform.withdraw(status.token)

    # The store -----------------------------------------------------------------------------------

    def _read_champion(self) -> Champion | None:
        """Return the champion pointer, however long the store needs (`rollout.store_timeout`)."""
        return self._retry_store(lambda: self.models.champion(self.name))

    def _pin(self, version: int) -> PinnedVersion:
        if version not in self._pins:
            self._pins[version] = self._retry_store(lambda: pin_version(self.models, self.name, version))
        return self._pins[version]

    def _describe_servers(self, version: int, digest: str, as_last_served: bool = False) -> Servers:
        return self._retry_store(lambda: self.platform.describe_servers(version, digest, as_last_served))

    def _golden_check(self, pinned: PinnedVersion) -> Check:
        tolerance = self.rollout.golden_tolerance
        return lambda target: replay_golden_requests(target, self.name, pinned, tolerance)

    def _promoted_meanwhile(self, version: int) -> Outcome | None:
        """Return the outcome of a version that was promoted by hand during its rollout."""
        with suppress(StoreError):
            champion = self.models.champion(self.name)
            if champion and champion.version == version:
                return Outcome(version=version, decision="promote", reason=champion.reason)
        return None

    def _record_served(self, *loading: int) -> None:
        """Note in the store what is served here, for the gc of other environments, if that is possible."""
        with suppress(ClusterError, StoreError):
            if platform_id := self.platform.id:
                versions = self.platform.status().loaded.union(loading)
                self.models.record_served(self.name, platform_id, self.platform.location, versions)

    def _retry_store(self, action: Callable[[], T]) -> T:
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
            self.sleep(STORE_RETRY_SECONDS)

    # The process ---------------------------------------------------------------------------------

    @contextmanager
    def _session(self, token: str | None) -> Iterator[None]:
        """End at SIGTERM, write heartbeats for the rollout with a token, and note at the end what is served.

        A rollout that is killed leaves its candidate behind, perhaps among clients. The heartbeat tells such
        a candidate from one whose rollout runs; it is no lock.
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


def _unfinished_message(version: int) -> str:
    return f"Version {version} is the champion; deploy it again to see stable brought to it."
