"""Whether anything is new for a model since its champion was made, for runs that are to end when nothing is.

A run that is asked to train again all the same, because its champion is old, must not find the old data in
the cache: its data get another key. The key counts how many times over the champion is too old, so that it is
trained once each time, and the runs between find that training in the cache.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from modelyard.components.artifacts import UNCHANGED, Record
from modelyard.components.store.models import ModelStore


class Made(Record):
    """The champion, made of the data, the configuration and the code of this run; `at` it was promoted."""

    version: int
    at: datetime

    def overdue(self, force_after: int) -> int:
        """Return how many times over the champion is older than `force_after` seconds; 0 means never."""
        return int((datetime.now(UTC) - self.at).total_seconds() // force_after) if force_after else 0

    def reason(self) -> str:
        """Return why nothing is to be done, in a sentence."""
        return (
            f"version {self.version}, the champion since {self.at:%Y-%m-%d %H:%M} UTC, was made of the same "
            "data, configuration and code"
        )


def made_of(store: ModelStore, name: str, data: str, recipe: str) -> Made | None:
    """Return the champion if it was made of these, else None.

    Args:
        store: the model store.
        name: the model's name.
        data: the data's fingerprint.
        recipe: fingerprint of the configuration and the code that decide the result.

    Raises:
        StoreError: the store cannot be read.
    """
    champion = store.champion(name)
    if champion is None:
        return None
    manifest = store.manifest(name, champion.version)
    if (manifest.data, manifest.code) != (data, recipe):
        return None
    promotion = store.entry(name, champion.history)
    return Made(version=champion.version, at=datetime.fromisoformat(promotion.at))


def reason_in(log: Sequence[str]) -> str | None:
    """Return why a run ended as unchanged, from the log of fingerprint; None when it did not."""
    begin = f"{UNCHANGED}: "
    return next((line.removeprefix(begin) for line in log if line.startswith(begin)), None)
