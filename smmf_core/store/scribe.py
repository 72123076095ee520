"""What the store's thread does: reads what a former run left, then writes what has changed.

Owns the storage and the Memory. May block for as long as the database lets it; must not retry by
itself, nor touch the outbox's putting side.
"""

from __future__ import annotations

import time

from smmf_core.keys import first_day_of_month
from smmf_core.store.memory import Memory, overridden
from smmf_core.store.outbox import ALIAS, INSTANCE, KEY, MODEL, Outbox, RowKey
from smmf_core.store.records import EventRecord, Stored, StoreError
from smmf_core.store.storage import SQLAlchemyStorage
from smmf_core.store.sums import Sums

EVENT_BATCH = 1000
EVENTS_READ = 1000
PRUNE_S = 3600.0


class Scribe:
    """One call at a time. Every method raises StoreError."""

    def __init__(self, storage: SQLAlchemyStorage, outbox: Outbox, retention_s: float) -> None:
        self._storage = storage
        self._outbox = outbox
        self._retention_s = retention_s
        self._memory: Memory | None = None
        self._sums = Sums(storage)
        self._events: list[EventRecord] = []  # taken, not yet written
        self._prune_at = 0.0  # Unix time
        self.refused = ""  # why the last row that the database does not take was given up

    @property
    def has_read(self) -> bool:
        return self._memory is not None

    def read(self) -> Stored:
        """What a former run left, as far as this one has not overridden it. Rows of instances are
        that run's: they go with the next write."""
        storage = self._storage
        storage.open()
        with storage.transaction():
            stored = Stored(
                models=storage.models(),
                aliases=storage.aliases(),
                events=storage.events(EVENTS_READ),
                keys=storage.api_keys(),
                month_tokens=storage.tokens_since(first_day_of_month(time.time())),
                last_used=storage.last_used(),
            )
            former = [record.instance for record in storage.instances()]
        self._memory = Memory(stored)
        self._memory.dirty.update(((INSTANCE, name), None) for name in former)
        return overridden(stored, self._outbox.pending())

    def write(self) -> None:
        """Everything that was put before this call.

        1. Rows move from the outbox to memory, where they are dirty until they are written.
        2. A connection may have broken while nothing was written: that shows now.
        3. A database that was away may have been made anew: all of it is written again.
        """
        assert self._memory is not None
        self._memory.apply(self._outbox.take_rows())  # 1
        self._sums.add(self._outbox.take_usage())
        if self._storage.is_open:  # 2
            try:
                return self._write()
            except StoreError:
                self._storage.close()
        self._storage.open()  # 3
        self._memory.all_dirty()
        self._sums.all_dirty()
        return self._write()

    def _write(self) -> None:
        """A row that the database does not take is found singly, and given up."""
        try:
            self._write_all()
        except StoreError as error:
            if error.is_passing:
                self._storage.close()
                raise
            self._write_singly()
        self._prune()

    def _write_all(self) -> None:
        """In one transaction; more events than fit in it in further ones."""
        assert self._memory is not None
        while True:
            if not self._events:
                self._events = self._outbox.take_events(EVENT_BATCH)
            if not self._events and not self._memory.dirty and not self._sums.is_dirty:
                return
            with self._storage.transaction():
                self._put_rows(list(self._memory.dirty))
                self._sums.write()
                self._storage.add_events(self._events)
            self._memory.dirty.clear()
            self._sums.written()
            self._events = []

    def _write_singly(self) -> None:
        assert self._memory is not None
        for key in list(self._memory.dirty):
            try:
                with self._storage.transaction():
                    self._put_rows([key])
            except StoreError as error:
                self._give_up(error)
            del self._memory.dirty[key]
        try:
            with self._storage.transaction():
                self._sums.write()
        except StoreError as error:
            self._give_up(error)
        self._sums.written()
        while self._events:
            try:
                self._storage.add_events(self._events[:1])
            except StoreError as error:
                self._give_up(error)
            del self._events[0]

    def _give_up(self, error: StoreError) -> None:
        if error.is_passing:
            self._storage.close()
            raise error
        self.refused = str(error)

    def _put_rows(self, keys: list[RowKey]) -> None:
        memory, storage = self._memory, self._storage
        assert memory is not None
        names: dict[str, list[str]] = {MODEL: [], INSTANCE: [], ALIAS: [], KEY: []}
        for kind, name in keys:
            names[kind].append(name)
        models, instances, aliases = names[MODEL], names[INSTANCE], names[ALIAS]
        storage.delete_keys(n for n in names[KEY] if n not in memory.keys)
        storage.put_keys([memory.keys[n] for n in names[KEY] if n in memory.keys])
        storage.delete_models(n for n in models if n not in memory.models)
        storage.delete_instances(n for n in instances if n not in memory.instances)
        storage.delete_aliases(n for n in aliases if n not in memory.aliases)
        storage.put_models([memory.models[n] for n in models if n in memory.models])
        storage.put_instances([memory.instances[n] for n in instances if n in memory.instances])
        storage.put_aliases({n: memory.aliases[n] for n in aliases if n in memory.aliases})

    def _prune(self) -> None:
        now = time.time()
        if now >= self._prune_at:
            self._storage.delete_events(now - self._retention_s)
            self._prune_at = now + PRUNE_S
