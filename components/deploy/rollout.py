"""The rollout of a version, in phases that may be killed at any point and run again.

1. settle     update stable to the champion, if that version can run
2. claim      create or take over the candidate; clients reach only stable
3. verify     send the golden requests, and compare the predictions with those that evaluate recorded
4. analyze    also route clients to the candidate, and compare its failures and latency with stable
5. promote    move the champion pointer by compare-and-swap, update stable, delete the candidate

A rollback skips phases 1 and 4. It verifies a server of the earlier version before that version becomes
champion. A rollout of the champion with another image or other settings skips phase 1, and does not move
the pointer.

After moving the pointer, a rollout updates stable and reads the pointer again. If stable cannot be updated,
the rollout restores pointer and stable. Of two concurrent rollouts, the later one takes over the candidate;
the earlier one detects this and ends. The platform (platforms/base.py) loads versions and routes clients;
stable.py moves the pointer and updates stable.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn
from uuid import uuid4

from modelyard.components.artifacts import Outcome
from modelyard.components.deploy.canary_analysis import analyze
from modelyard.components.deploy.platforms import base
from modelyard.components.deploy.platforms.base import Servers, Superseded, superseded_error
from modelyard.components.deploy.stable import StableUpdater
from modelyard.components.deploy.verification import PinnedVersion, hold_outcome
from modelyard.components.errors import (
    CancelledError,
    ClusterError,
    ConflictError,
    DamagedError,
    DeployError,
    ModelyardError,
    NotFoundError,
    StoreError,
    describe,
    pluralize,
)
from modelyard.components.signals import ignore_sigterm, raise_on_sigterm
from modelyard.components.store.records import Champion


class RolloutController(StableUpdater):
    """Rolls out the versions of one model on one platform; StableUpdater describes the arguments."""

    # Commands -------------------------------------------------------------------------------------

    def roll_out(self, pin: PinnedVersion, expected: int | None, reason: str) -> Outcome:
        """Roll out a version and return the outcome; `reason` is that of a promotion.

        `expected` is the champion that the version was compared with; 0 for none, None to accept any.

        Raises:
            DeployError: the version was not promoted; the message contains the reason and the served version.
            CancelledError: the process received SIGTERM; the candidate is withdrawn.
            ClusterError: the cluster refuses a request or does not respond.
            StoreError: the store does not respond, or is damaged.
        """
        token, version = uuid4().hex, pin.version
        self._pins[version] = pin
        with self._session(token):
            previous = self._champion_version()
            try:
                servers = self._describe_servers(version, pin.digest)
                self._adopt_only_candidate(servers)
                if previous == version and servers.matches(self.platform.status().stable):
                    self.platform.verify(servers, self._golden_check(pin))
                    self._delete_unneeded_candidate(servers)
                    return Outcome(version=version, decision="promote", reason=reason)
                if previous != version:
                    self._settle_stable()
                    previous = self._champion_version()
                if expected not in (None, previous) and previous != version:
                    self._delete_unneeded_candidate(servers)
                    return hold_outcome(version, expected or 0, previous)
                self._claim(token, servers)
                self._verify_candidate(servers, pin, token)
                summary = self._analyze(pin, token)
                self._check_owner(token)
                self._move_pointer(version, previous, f"{reason}; {summary}" if summary else reason)
            except (Exception, KeyboardInterrupt) as error:
                with ignore_sigterm():
                    return self._handle_failure(version, expected, previous, token, error)
            self._finish(servers, previous, token)
            return Outcome(version=version, decision="promote", reason=reason)

    def promote(self, pin: PinnedVersion, reason: str) -> Champion:
        """Verify a version in a server and make it the champion; stable is not updated.

        Raises:
            DeployError: the server does not run, or fails verification.
        """
        servers = self._describe_servers(pin.version, pin.digest)
        self._verify_candidate(servers, pin, uuid4().hex)
        try:
            self.models.champion(self.name)
        except DamagedError as error:
            state = "missing" if isinstance(error.__cause__, NotFoundError) else "damaged"
            self.log(f"champion.json of {self.name} is {state}: writing it again")
        return self.models.promote(self.name, pin.version, reason=reason, by=self.by)

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
        pin, previous = self._pin(servers.version), self._champion_version()
        with self._session(status.token):  # the candidate's rollout notices the promotion
            self._verify_candidate(servers, pin, status.token)
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
        previous, pin, token = champion.version, self._pin(target), uuid4().hex
        with self._session(token):
            try:
                servers = self._describe_servers(target, pin.digest, as_last_served=True)
                self._adopt_only_candidate(servers)
                if servers.matches(self.platform.status().stable):
                    self.platform.verify(servers, self._golden_check(pin))
                else:
                    self._claim(token, servers)
                    self._verify_candidate(servers, pin, token)
                champion = self._move_pointer(target, previous, reason, "rollback")
            except (Exception, KeyboardInterrupt) as error:
                with ignore_sigterm():
                    self._withdraw_if_stable_serves(token)
                    self._raise_failure(target, previous, token, error)
            self._finish(servers, previous, None)
        return champion

    # Phases ---------------------------------------------------------------------------------------

    def _claim(self, token: str, servers: Servers) -> None:
        """Make these servers the candidate, and record that they load the version."""
        self.platform.claim(token, servers)
        self.log(f"candidate: version {servers.version} of {self.name}")
        self._record_served()

    def _verify_candidate(self, servers: Servers, pin: PinnedVersion, token: str) -> None:
        count = self.platform.verify(servers, self._golden_check(pin), token)
        if not count:
            raise DeployError(
                f"The candidate's servers, version {servers.version}, ended before they were verified. "
                "Deploy again."
            )
        golden = pluralize(len(pin.golden.instances), "golden request")
        self.log(f"verified: {golden}, {pluralize(count, 'candidate server')}")

    def _analyze(self, pin: PinnedVersion, token: str) -> str:
        """Analyze the candidate and return the summary, or an empty string if the platform has no canary."""
        window = self.platform.open_window(token)
        if window is None:
            return ""
        self.platform.route_to_candidate(token)
        seconds = self.rollout.bake_seconds
        self.log(f"canary: clients of {self.name} reach the candidate too; analysis for {seconds:g} s")
        summary = f"canary analysis: {analyze(self.name, pin, window, self.rollout, self.now, self.sleep)}"
        self.log(summary)
        return summary

    def _check_owner(self, token: str) -> None:
        """Raise Superseded if the candidate belongs to another rollout."""
        status = self.platform.status()
        if status.candidate is None or status.token != token:
            raise superseded_error(self.name, status.candidate.version if status.candidate else None)

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

    def _delete_unneeded_candidate(self, servers: Servers) -> None:
        """Delete the candidate if it is abandoned or matches these servers.

        If no server of stable is ready, the candidate may be the only server for clients and is not deleted.
        """
        status = self.platform.status()
        if (
            status.candidate
            and status.stable_serves
            and (servers.matches(status.candidate) or status.abandoned)
        ):
            self.log(f"deleting the unneeded candidate of version {status.candidate.version}")
            self.platform.withdraw(status.token)

    # Failures -------------------------------------------------------------------------------------

    def _handle_failure(
        self, version: int, expected: int | None, previous: int, token: str, error: BaseException
    ) -> Outcome:
        """Withdraw the candidate; return the outcome of a failed rollout, or raise the error.

        `expected` is that of `roll_out`, and `previous` the champion before the rollout.
        """
        # first, because the store may not respond before this process is killed
        self._withdraw_if_stable_serves(token)
        if isinstance(error, ConflictError):
            self.platform.withdraw(token)
            return hold_outcome(version, previous if expected is None else expected, self._find_champion())
        # A user or this rollout may have promoted the version before the process received SIGTERM.
        promotion = self._find_promotion(version) if previous != version else None
        if promotion and isinstance(error, DeployError):
            return promotion
        if isinstance(error, Superseded):
            reason = str(error).rstrip(".")
            return Outcome(version=version, decision="hold", reason=reason[:1].lower() + reason[1:])
        return self._raise_failure(version, previous, token, error)

    def _raise_failure(self, version: int, previous: int, token: str, error: BaseException) -> NoReturn:
        """Withdraw the candidate unless it is the champion, and raise the error.

        The message of the error also contains the served version.
        """
        if previous != version and self._find_promotion(version):
            state = _unfinished_message(version)
        else:
            state = self._withdraw_and_record(version, previous, token, error)
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
        self.log(f"removing the candidate: {cause}")
        stable = "stable is unchanged"
        with ignore_sigterm():
            with suppress(ClusterError, StoreError):
                self.platform.withdraw(token)
                servers = self.platform.status().stable
                serves = "the champion is" if self.platform.follows_pointer else "stable serves"
                stable = f"{serves} version {servers.version} as before" if servers else "nothing is served"
            with suppress(StoreError):
                self.models.record_attempt(self.name, version, reason=f"not {verb}: {cause}", by=self.by)
        return f"Version {version} was not {verb}, and {stable}."

    # Process --------------------------------------------------------------------------------------

    @contextmanager
    def _session(self, token: str | None) -> Iterator[None]:
        """Raise CancelledError at SIGTERM, write heartbeats, and record the served versions at the end.

        Heartbeats need a token. They distinguish the candidate of a running rollout from that of a killed
        one, and are not a lock.
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
    return f"Version {version} is the champion; deploy it again to update stable."
