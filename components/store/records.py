"""What the model store keeps beside the versions' files: `run.json`, `champion.json`, `history/*.json`."""

from typing import Literal

from modelyard.components.artifacts import Record

Action = Literal["promote", "rollback"]


class Run(Record):
    """Who reserved a version's number (`run.json`).

    `run` is the fingerprint of data, config and code; `at` an ISO 8601 time in UTC.
    """

    run: str
    at: str


class Champion(Record):
    """The version that is served (`champion.json`).

    `previous` is the version that a rollback goes back to, None when there is none. `digest` is the
    SHA-256 of the version's manifest.json, `run` its run's fingerprint. `history` is the number of the
    history entry that says how this pointer came about.
    """

    version: int
    previous: int | None
    digest: str
    run: str
    reason: str
    history: int


class HistoryEntry(Record):
    """One promotion or rollback (`history/000012.json`), written before the pointer that names it.

    `version` is the new champion and `previous` the one that it took the place of, None for the first.
    `after` is the entry that the pointer named until then, 0 for the first; `token` makes every entry
    different from every other. `attempt` is not stored: it is True when no pointer ever named the entry,
    because its writer was killed or somebody else was faster.
    """

    number: int = 0
    after: int = 0
    token: str = ""
    action: Action
    version: int
    previous: int | None = None
    digest: str
    run: str
    reason: str
    by: str
    at: str
    attempt: bool = False
