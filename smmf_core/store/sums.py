"""Sums of usage as they ought to be in the database, and which of them it lacks.

Sums are written whole, not added to what is there: a write whose outcome is not known may be made
again. Owned by the store's thread. Must not grow with time: only the last day's sums stay.
"""

from __future__ import annotations

from collections.abc import Mapping

from smmf_core.store.outbox import add_up
from smmf_core.store.records import Usage, UsageKey
from smmf_core.store.storage import SQLAlchemyStorage


class Sums:
    """`add`, then `write` in a transaction, then `written` when that has succeeded."""

    def __init__(self, storage: SQLAlchemyStorage) -> None:
        self._storage = storage
        self._added: dict[UsageKey, Usage] = {}  # to sums that have not been read yet
        self._sums: dict[UsageKey, Usage] = {}
        self._dirty: set[UsageKey] = set()

    def add(self, added: Mapping[UsageKey, Usage]) -> None:
        add_up(self._added, added)

    def all_dirty(self) -> None:
        """The database may have been made anew."""
        self._dirty.update(self._sums)

    @property
    def is_dirty(self) -> bool:
        return bool(self._added or self._dirty)

    def write(self) -> None:
        """Raises StoreError; what it was to write is then still to be written."""
        for key in list(self._added):
            former = self._sums.get(key) or self._storage.usage_of(key)
            self._sums[key] = former.plus(self._added.pop(key))
            self._dirty.add(key)
        self._storage.put_usage({key: self._sums[key] for key in self._dirty})

    def written(self) -> None:
        """What is older than the last day that was used is looked up if it is used again."""
        self._dirty.clear()
        self._added.clear()
        today = max((key.day for key in self._sums), default="")
        self._sums = {key: usage for key, usage in self._sums.items() if key.day == today}
