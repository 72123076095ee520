"""The registry's rows as they ought to be, in memory, and which of them the database lacks.

Pure; owned by the store's thread. Must not write anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, cast

import msgspec

from smmf_core.store.outbox import ALIAS, INSTANCE, KEY, MODEL, ModelOp, Op, RowKey
from smmf_core.store.records import REGISTERED, InstanceRecord, KeyRecord, Stored

Row = TypeVar("Row")
_DESIRED = ("replicas", "is_stopped", "is_pinned", "facts")


class Memory:
    """Starts as a former run left it: nothing runs any more, so every model is `registered`."""

    def __init__(self, stored: Stored) -> None:
        self.models = {record.model_name: record for record in stored.models}
        self.instances: dict[str, InstanceRecord] = {}
        self.aliases = dict(stored.aliases)
        self.keys = {record.key_id: record for record in stored.keys}
        self.dirty: dict[RowKey, None] = {}  # in the order in which they became so
        for name, record in self.models.items():
            if record.status != REGISTERED:
                self.models[name] = msgspec.structs.replace(record, status=REGISTERED)
                self.dirty[MODEL, name] = None

    def all_dirty(self) -> None:
        """The database may have been made anew."""
        self.dirty.update(((MODEL, name), None) for name in self.models)
        self.dirty.update(((INSTANCE, name), None) for name in self.instances)
        self.dirty.update(((ALIAS, name), None) for name in self.aliases)
        self.dirty.update(((KEY, name), None) for name in self.keys)

    def apply(self, ops: Mapping[RowKey, Op]) -> None:
        """Models first: forgetting one takes its instances and aliases with it."""
        for (kind, name), op in ops.items():
            if kind == MODEL:
                self._apply_model(name, cast(ModelOp, op))
        for (kind, name), op in ops.items():
            if kind == INSTANCE:
                self._set(kind, name, self.instances, cast(InstanceRecord | None, op))
            elif kind == ALIAS:
                self._set(kind, name, self.aliases, cast(str | None, op))
            elif kind == KEY:
                self._set(kind, name, self.keys, cast(KeyRecord | None, op))

    def _apply_model(self, name: str, op: ModelOp) -> None:
        if op.is_reset:
            for instance, record in list(self.instances.items()):
                if record.model_name == name:
                    self._set(INSTANCE, instance, self.instances, None)
            for alias, model in list(self.aliases.items()):
                if model == name:
                    self._set(ALIAS, alias, self.aliases, None)
        self._set(MODEL, name, self.models, op.on(self.models.get(name)))

    def _set(self, kind: str, name: str, rows: dict[str, Row], value: Row | None) -> None:
        if value is None:
            rows.pop(name, None)
        else:
            rows[name] = value
        self.dirty[kind, name] = None


def overridden(stored: Stored, ops: Mapping[RowKey, Op]) -> Stored:
    """What a former run left, less what this run has said in the meantime.

    A model that was forgotten or registered anew is left out; wishes and facts of this run are put
    in place of the former ones.
    """
    models = []
    for record in stored.models:
        op = ops.get((MODEL, record.model_name), ModelOp())
        if not isinstance(op, ModelOp) or op.is_reset:
            continue
        given = op.change.given() if op.change is not None else {}
        newer = {name: given[name] for name in _DESIRED if name in given}
        models.append(msgspec.structs.replace(record, status=REGISTERED, **newer))
    aliases = {a: m for a, m in stored.aliases.items() if (ALIAS, a) not in ops}
    return msgspec.structs.replace(stored, models=models, aliases=aliases)
