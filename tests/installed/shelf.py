"""A storage plugin: shelf://NAME/prefix is a table in $SHELVES/NAME.sqlite.

With this folder in PYTHONPATH, it is an installed distribution.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from modelyard.components.errors import ConflictError, NotFoundError
from modelyard.components.store.objects import Entry, check_key
from modelyard.components.store.storage import Connection, Storage

TABLE = """
CREATE TABLE IF NOT EXISTS objects (
    key TEXT PRIMARY KEY, data BLOB, changed REAL, revision INTEGER DEFAULT 1,
    generation TEXT DEFAULT (hex(randomblob(16)))
)
"""


class Shelf(Storage):
    form = "shelf://name/prefix"

    def open(self, url: str, connection: Connection) -> "Table":  # noqa: ARG002
        root, prefix = self.split(url)
        if not (name := root.removeprefix("shelf://")):
            raise ValueError("which has no name")
        return Table(url, Path(os.environ["SHELVES"], f"{name}.sqlite"), prefix and f"{prefix}/")


class Table:
    def __init__(self, url: str, path: Path, prefix: str) -> None:
        self.url, self._path, self._prefix = url, path, prefix

    def read(self, key: str) -> tuple[bytes, str]:
        for data, generation in self._run("SELECT data, generation FROM objects WHERE key = ?", key):
            return data, generation
        raise NotFoundError(f"{self.url} has no {key}.")

    def create(self, key: str, data: bytes) -> None:
        insert = (
            "INSERT INTO objects (key, data, changed) VALUES (?, ?, ?) ON CONFLICT DO NOTHING RETURNING 1"
        )
        if not self._run(insert, check_key(key), data, time.time()):
            raise ConflictError(f"{self.url}/{key} exists already.")

    def replace(self, key: str, data: bytes, generation: str) -> str:
        change = "data = ?2, changed = ?3, generation = hex(randomblob(16))"
        update = f"UPDATE objects SET {change} WHERE key = ?1 AND generation = ?4 RETURNING generation"  # noqa: S608
        for (new,) in self._run(update, key, data, time.time(), generation):
            return str(new)
        raise ConflictError(f"{self.url}/{key} was changed by another process.")

    def upload(self, key: str, path: Path) -> None:
        insert = "INSERT OR REPLACE INTO objects (key, data, changed) VALUES (?, ?, ?)"
        self._run(insert, check_key(key), path.read_bytes(), time.time())

    def create_from_file(self, key: str, file: IO[bytes], size: int) -> None:
        self.create(key, file.read(size))

    def touch(self, key: str) -> bool:
        update = "UPDATE objects SET changed = ?2, revision = revision + 1 WHERE key = ?1 RETURNING 1"
        return bool(self._run(update, key, time.time()))

    def delete(self, entry: Entry) -> bool:
        self._run(
            "DELETE FROM objects WHERE key = ? AND generation = ? AND revision = ?",
            entry.key,
            entry.generation,
            int(entry.revision),
        )
        return self.find(entry.key) is None

    def download(self, key: str, path: Path, generation: str | None = None) -> None:
        data, current = self.read(key)
        if generation not in (None, current):
            raise NotFoundError(f"{self.url}/{key} was replaced.")
        path.write_bytes(data)

    def find(self, key: str) -> Entry | None:
        return next((entry for entry in self.entries(key) if entry.key == key), None)

    def keys(self, prefix: str) -> list[str]:
        return [entry.key for entry in self.entries(prefix)]

    def entries(self, prefix: str) -> list[Entry]:
        select = "SELECT key, length(data), changed, generation, revision FROM objects"
        rows = self._run(f"{select} WHERE substr(key, 1, length(?1)) = ?1 ORDER BY key", prefix)
        return [
            Entry(key.removeprefix(self._prefix), size, changed, generation, str(revision))
            for key, size, changed, generation, revision in rows
        ]

    def folders(self, prefix: str) -> list[str]:
        inside = (key.removeprefix(prefix).split("/") for key in self.keys(prefix))
        return sorted({parts[0] for parts in inside if len(parts) > 1})

    def _run(self, statement: str, key: str, *values: object) -> list[tuple[object, ...]]:
        with self._table() as table:
            return table.execute(statement, (self._prefix + key, *values)).fetchall()

    @contextmanager
    def _table(self) -> Iterator[sqlite3.Connection]:
        table = sqlite3.connect(self._path, timeout=60)
        try:
            with table:
                table.execute(TABLE)
                yield table
        finally:
            table.close()
