"""Records as JSON objects: read with a plain error, many at once; written in one form."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TypeVar

from pydantic import ValidationError

from modelyard.components.artifacts import Record
from modelyard.components.errors import NotFoundError, StoreError
from modelyard.components.store.objects import Objects

READERS = 8

R = TypeVar("R", bound=Record)


def read(objects: Objects, key: str, kind: type[R]) -> R:
    """Return the record at `key`.

    Raises:
        NotFoundError: there is none.
        StoreError: what is there is not such a record.
    """
    return parsed(objects, key, objects.read(key)[0], kind)


def read_all(objects: Objects, keys: Iterable[str], kind: type[R]) -> list[R | None]:
    """Return the records at `keys`, read at once; None for one that is not there."""

    def one(key: str) -> R | None:
        try:
            return read(objects, key, kind)
        except NotFoundError:
            return None

    with ThreadPoolExecutor(READERS) as readers:
        return list(readers.map(one, keys))


def parsed(objects: Objects, key: str, data: bytes, kind: type[R]) -> R:
    """Return the record that `data`, read at `key`, holds.

    Raises:
        StoreError: it holds none.
    """
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise StoreError(
            f"{objects.url}/{key} is not a {kind.__name__} ({error.errors()[0]['msg']}): it was damaged, or "
            "written by another version of modelyard. Restore it from a backup, or use another store."
        ) from error


def text(record: Record, without: set[str] | None = None) -> bytes:
    """Return the bytes that are stored for `record`, without the fields named."""
    return (record.model_dump_json(indent=2, exclude=without) + "\n").encode()


def now() -> str:
    """Return the time in UTC, as ISO 8601 with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
