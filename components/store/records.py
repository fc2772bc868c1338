"""The JSON records of the store, such as `run.json`, `champion.json` and `history/*.json`.

The champion pointer names the latest history entry, and each entry names its predecessor. Entries of this
chain took effect; all other entries are attempts.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Literal, TypeVar

from pydantic import ValidationError

from modelyard.components.artifacts import Record, describe_validation
from modelyard.components.errors import ConflictError, DamagedError, NotFoundError
from modelyard.components.store.objects import CONNECTIONS, Objects

R = TypeVar("R", bound=Record)
Action = Literal["promote", "rollback"]


class Reservation(Record):
    """The run that reserved a version number (`run.json`).

    `run` is the fingerprint of data, configuration and code; `at` is an ISO 8601 time in UTC.
    """

    run: str
    at: str


class Champion(Record):
    """The version that is served (`champion.json`).

    `previous` is the version that a rollback restores, if there is one. `digest` is the SHA-256 of the
    version's manifest.json, `run` the fingerprint of its run, `history` the number of its history entry.
    """

    version: int
    previous: int | None
    digest: str
    run: str
    reason: str
    history: int


class HistoryEntry(Record):
    """One promotion or rollback (`history/000012.json`), written before the pointer that names it.

    `version` is the new champion and `previous` the one before, None for the first. `after` is the number of
    the entry that the pointer named before, 0 for the first. `token` is random, so no two entries are equal.

    `attempt` is True if no pointer ever named the entry. It is stored only for a recorded attempt.
    `mark_attempts` sets it for the others: their process was killed, or another process moved the pointer
    first.
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


class ServedVersions(Record):
    """The versions that a serving platform has loaded (`served/<id>.json`), which `modelyard gc` keeps.

    `platform` is the ID of the platform, `location` a description such as its namespace, `at` an ISO 8601
    time in UTC.
    """

    platform: str
    location: str
    versions: tuple[int, ...]
    at: str


REMEDIES = {
    "Champion": "`modelyard models promote NAME VERSION` writes it again; or restore it from a backup.",
    "HistoryEntry": "Restore it from a backup, or delete it: the history then lacks this entry.",
    "ServedVersions": "The next rollout on that platform writes it again. If there is none, delete it.",
    **dict.fromkeys(("RunStart", "DecisionRecord", "OutcomeRecord", "RunEnd"), "Delete it."),
}
"""The remedies for damaged records, by class."""
CONFLICT_RETRIES = 10


def read_record(objects: Objects, key: str, kind: type[R]) -> R:
    """Return the record at `key`.

    Raises:
        NotFoundError: there is none.
        DamagedError: the object is not such a record.
    """
    return parse_record(objects, key, objects.read(key)[0], kind)


def read_records(
    objects: Objects, keys: Iterable[str], kind: type[R], errors: list[str] | None = None
) -> list[R | None]:
    """Return the records at `keys`, read in parallel; None for each missing one.

    If there is a list `errors`, it gets a message for each damaged record, which is None in the result.

    Raises:
        DamagedError: a record is damaged, and `errors` is None.
    """

    def read_or_none(key: str) -> R | DamagedError | None:
        try:
            return read_record(objects, key, kind)
        except NotFoundError:
            return None
        except DamagedError as error:
            if errors is None:
                raise
            return error

    with ThreadPoolExecutor(CONNECTIONS) as readers:
        results = list(readers.map(read_or_none, keys))
    if errors is not None:
        errors += [str(result) for result in results if isinstance(result, DamagedError)]
    return [None if isinstance(result, DamagedError) else result for result in results]


def parse_record(objects: Objects, key: str, data: bytes, kind: type[R]) -> R:
    """Return the record in `data`, which was read from `key`.

    Raises:
        DamagedError: `data` is not such a record.
    """
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        reason = describe_validation(error) if data.strip() else "it is empty"
        remedy = REMEDIES.get(kind.__name__, "Restore it from a backup, or use another version.")
        raise DamagedError(
            f"{objects.url}/{key} is damaged, or another version of modelyard wrote it ({reason}). {remedy}"
        ) from error


def write_record(objects: Objects, key: str, record: Record) -> None:
    """Write a record; overwrite an existing one.

    Raises:
        ConflictError: other processes changed it each time.
    """
    data = to_bytes(record)
    for _ in range(CONFLICT_RETRIES):
        try:
            objects.create(key, data)
        except ConflictError:
            try:
                objects.replace(key, data, objects.read(key)[1])
            except (ConflictError, NotFoundError):
                continue
        return
    raise ConflictError(
        f"{objects.url}/{key} was changed by other processes {CONFLICT_RETRIES} times in a row. Run the "
        "command again."
    )


def to_bytes(record: Record, exclude: set[str] | None = None) -> bytes:
    """Return a record as JSON, without the fields in `exclude`."""
    return (record.model_dump_json(indent=2, exclude=exclude) + "\n").encode()


def now() -> str:
    """Return the time in UTC, as ISO 8601 with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def mark_attempts(entries: Sequence[HistoryEntry], head: int) -> list[HistoryEntry]:
    """Return `entries` in order, with `attempt` True for those outside the chain that ends at `head`.

    Where an entry of the chain is missing, the chain continues at the entry before it.
    """
    by_number = {entry.number: entry for entry in entries}
    chain = set()
    while head:
        if head not in by_number:
            earlier = (entry.number for entry in entries if entry.number < head and not entry.attempt)
            head = max(earlier, default=0)
            continue
        chain.add(head)
        head = by_number[head].after
    return [
        by_number[number].model_copy(update={"attempt": number not in chain}) for number in sorted(by_number)
    ]


def rollback_target(entries: Sequence[HistoryEntry], target: int) -> int | None:
    """Return the version that the next rollback restores after a rollback to `target`; None if there is none.

    Promotions are a stack, and a rollback removes what is above its target: after promotions of 1, 2 and 3
    and a rollback to 2, the next rollback restores 1, not 3. `entries` are those without attempts.
    """
    stack: list[int] = []
    for entry in entries:
        if entry.action == "promote":
            stack.append(entry.version)
        else:
            stack = _truncate(stack, entry.version)
    stack = _truncate(stack, target)
    return stack[-2] if len(stack) > 1 else None


def _truncate(stack: list[int], version: int) -> list[int]:
    """Return `stack` up to `version`; if it is not in `stack`, it replaces the top."""
    if version not in stack:
        return [*stack[:-1], version]
    last = len(stack) - 1 - stack[::-1].index(version)
    return stack[: last + 1]


def find_rollback(entries: Sequence[HistoryEntry], version: int) -> HistoryEntry | None:
    """Return the rollback from `version`, unless `version` became champion again later.

    `entries` are those without attempts, oldest first.
    """
    for entry in reversed(entries):
        if entry.version == version:
            return None
        if entry.action == "rollback" and entry.previous == version:
            return entry
    return None
