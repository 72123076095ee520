"""Changes on their way to the store's thread: the newest per row, sums, and a bounded number of
events.

Thread safety: one thread puts, another takes; every step is one operation on a dict or deque that
the interpreter makes whole, so nobody waits. An entry is with either the outbox or its taker.
Pure. Must not grow with time: rows are bounded by their names, events by EVENTS_WAITING.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from smmf_core.store.records import (
    EventRecord,
    InstanceRecord,
    KeyRecord,
    ModelChange,
    ModelRecord,
    Usage,
    UsageKey,
)

EVENTS_WAITING = 10_000
USAGE_WAITING = 100_000  # rows of usage; beyond it a key's models are no longer told apart
MODEL, INSTANCE, ALIAS, KEY = "model", "instance", "alias", "key"
RowKey = tuple[str, str]
"""(MODEL, INSTANCE, ALIAS or KEY; the row's name)"""


@dataclass(slots=True, frozen=True)
class ModelOp:
    """What to do with one model: forget what was (`is_reset`), then change."""

    is_reset: bool = False
    change: ModelChange | None = None

    def then(self, change: ModelChange) -> ModelOp:
        if self.change is None:
            is_lost = self.is_reset and not isinstance(change.config, dict)
            return self if is_lost else ModelOp(self.is_reset, change)
        values = {**self.change.given(), **change.given()}
        return ModelOp(self.is_reset, ModelChange(model_name=change.model_name, **values))

    def on(self, record: ModelRecord | None) -> ModelRecord | None:
        """The record after it; None: there is none any more."""
        former = None if self.is_reset else record
        return former if self.change is None else self.change.on(former)


Op = ModelOp | InstanceRecord | KeyRecord | str | None
"""A model's, an instance's row, a key's row, an alias's model; None: the row goes."""


class Outbox:
    """`put` and `forget` for one thread, `take_*` for another."""

    def __init__(self) -> None:
        self._rows: dict[RowKey, Op] = {}
        self._events: deque[EventRecord] = deque(maxlen=EVENTS_WAITING)
        self._usage: dict[UsageKey, Usage] = {}
        self.puts = 0
        self.dropped_events = 0

    # --- the one who changes ---

    def put_model(self, change: ModelChange) -> None:
        key = (MODEL, change.model_name)
        former = self._rows.pop(key, None)
        op = former if isinstance(former, ModelOp) else ModelOp()
        self._put(key, op.then(change))

    def forget_model(self, name: str) -> None:
        for key, op in list(self._rows.items()):
            is_instance = isinstance(op, InstanceRecord) and op.model_name == name
            if is_instance or (key[0] == ALIAS and op == name):
                self._put(key, None)
        self._put((MODEL, name), ModelOp(is_reset=True))

    def put_instance(self, instance: str, record: InstanceRecord | None) -> None:
        self._put((INSTANCE, instance), record)

    def put_alias(self, alias: str, model: str | None) -> None:
        self._put((ALIAS, alias), model)

    def put_key(self, record: KeyRecord) -> None:
        self._put((KEY, record.key_id), record)

    def put_usage(self, added: dict[UsageKey, Usage]) -> None:
        """What came to the sums."""
        add_up(self._usage, added)
        self.puts += 1

    def put_event(self, event: EventRecord) -> None:
        if len(self._events) == EVENTS_WAITING:
            self.dropped_events += 1
        self._events.append(event)
        self.puts += 1

    def _put(self, key: RowKey, op: Op) -> None:
        self._rows[key] = op
        self.puts += 1

    # --- the one who writes ---

    def pending(self) -> dict[RowKey, Op]:
        """What is there now, without taking it."""
        return dict(self._rows)

    def take_rows(self) -> dict[RowKey, Op]:
        """In the order of their first change."""
        taken: dict[RowKey, Op] = {}
        for key in list(self._rows):
            op = self._rows.pop(key, self)
            if not isinstance(op, Outbox):  # else being merged by the other thread: it comes back
                taken[key] = op
        return taken

    def take_usage(self) -> dict[UsageKey, Usage]:
        """What came to the sums since the last call."""
        found = ((key, self._usage.pop(key, None)) for key in list(self._usage))
        return {key: usage for key, usage in found if usage is not None}

    def take_events(self, limit: int) -> list[EventRecord]:
        """The oldest; at most `limit`."""
        return [self._events.popleft() for _ in range(min(limit, len(self._events)))]


def add_up(sums: dict[UsageKey, Usage], added: Mapping[UsageKey, Usage]) -> None:
    """Into `sums`, which another thread may empty."""
    for key, usage in added.items():
        if key not in sums and len(sums) >= USAGE_WAITING:
            key = key._replace(model_name="")
        sums[key] = sums.pop(key, Usage()).plus(usage)
