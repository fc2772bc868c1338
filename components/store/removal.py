"""How versions that nobody needs any more go, whoever publishes or promotes meanwhile."""

import re
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from modelyard.components.errors import ConflictError, NotFoundError
from modelyard.components.store.address import open_objects
from modelyard.components.store.documents import READERS
from modelyard.components.store.models import ModelStore
from modelyard.components.store.objects import Entry, Objects
from modelyard.components.store.settings import Store
from modelyard.components.store.versions import MANIFEST, RUN, model_folder

GRACE = 3600.0  # seconds; no publication takes longer from one file to the next


@dataclass(frozen=True)
class Held:
    """What a number holds beside its reservation: bytes, and when the last of it was written (epoch seconds).

    `whole` says whether it is a version; else it is what somebody left who was killed, or is at work.
    """

    version: int
    size: int
    changed: float
    whole: bool


def open_removal(settings: Store) -> "Removal":
    """Return the model store that the `store` section names; see `open_store`."""
    return Removal(open_objects(settings))


class Removal(ModelStore):
    """The models in one place, and the way out for their versions."""

    def held(self, name: str) -> list[Held]:
        """Return the numbers that hold files, oldest first."""
        found: dict[int, list[tuple[str, int, float]]] = {}
        for entry in self._objects.entries(f"{model_folder(name)}/versions/"):
            place = re.fullmatch(rf"{name}/versions/(\d{{6,}})/(.+)", entry.key)
            if place and place[2] != RUN:
                found.setdefault(int(place[1]), []).append((place[2], entry.size, entry.changed))
        return [
            Held(
                version,
                sum(size for _, size, _ in files),
                max(changed for _, _, changed in files),
                any(path == MANIFEST for path, _, _ in files),
            )
            for version, files in sorted(found.items())
        ]

    def remove(self, name: str, version: int, grace: float = GRACE) -> bool:
        """Remove the files of a version; say whether they are gone.

        Args:
            name: the model's name.
            version: its number.
            grace: seconds for which files without a manifest are taken for the work of somebody who lives.

        The manifest goes first: whoever is killed after that leaves no version, and files that the next one
        takes away. The number stays reserved, so that the same run gets it again and no other run does. The
        files stay when the version became champion meanwhile, or its run publishes it anew.
        """
        entries = {entry.key: entry for entry in self._objects.entries(f"{_folder(name, version)}/")}
        entries.pop(f"{_folder(name, version)}/{RUN}", None)
        manifest = entries.pop(f"{_folder(name, version)}/{MANIFEST}", None)
        if not manifest and any(entry.changed > time.time() - grace for entry in entries.values()):
            return False
        if manifest:
            try:
                data, _ = self._objects.read(manifest.key)
            except NotFoundError:  # somebody else removes it, too
                data = b""
            if not self._objects.delete(manifest):
                return False
            champion = self.champion(name)
            if data and champion and version in (champion.version, champion.previous):
                with suppress(ConflictError):
                    self._objects.create(manifest.key, data)
                return False
        return clear(self._objects, entries.values())


def clear(objects: Objects, entries: Iterable[Entry]) -> bool:
    """Delete many objects at once; say whether all are gone, which those changed meanwhile are not."""
    with ThreadPoolExecutor(READERS) as workers:
        return all(list(workers.map(objects.delete, entries)))


def _folder(name: str, version: int) -> str:
    return f"{model_folder(name)}/versions/{version:06d}"
