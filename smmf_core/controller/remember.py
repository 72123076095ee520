"""Between the core and the store: what the one must keep, and what the other remembers.

Owns what the store was last told, so that it is told of differences only. Must not wait for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from smmf_core.config import ConfigProblems, ModelConfig, RawConfig, redacted, resolve, spec_hash
from smmf_core.controller.core import ControllerCore
from smmf_core.errors import ConfigError, ControlError
from smmf_core.lifecycle import Child
from smmf_core.registry import Model
from smmf_core.store.records import InstanceRecord, ModelChange, ModelRecord, Stored
from smmf_core.store.writer import Store

_UNSAID: dict[str, Any] = {"replicas": None, "is_stopped": False, "is_pinned": False, "facts": {}}
_FACTS = ("context_length", "capabilities", "dimensions", "memory_bytes", "load_s")


class _Told:
    """What the store knows of one model."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.config: ModelConfig | None = None
        self.values = dict(_UNSAID)  # a wish that was never made must not undo a remembered one
        self.instances: dict[str, InstanceRecord] = {}


class Remembrance:
    """`tell` at the end of a turn; `recall` when the store has been read.

    `raws` are the models' configs with their references unresolved, by the models' names.
    """

    def __init__(self, core: ControllerCore, raws: dict[str, RawConfig], store: Store) -> None:
        self._core = core
        self._raws = raws
        self._store = store
        self._told: dict[int, _Told] = {}  # by the models' indexes
        self._pointed: dict[str, str] = {}
        self._was_available = True

    def news(self) -> str:
        """What has become of the database since the last call, in one sentence; "": nothing."""
        state = self._store.state
        if state.is_available == self._was_available:
            return ""
        self._was_available = state.is_available
        return state.in_words()

    # --- core -> store ---

    def tell(self, indexes: Iterable[int]) -> None:
        """Models of these indexes may have changed, or ended; aliases may."""
        for index in indexes:
            model = self._core.registry.by_index(index)
            if model is not None:
                self._tell_model(model)
            elif (former := self._told.pop(index, None)) is not None:
                self._store.forget_model(former.name)
        pointed = self._core.registry.pointed
        if pointed != self._pointed:
            for alias in {**self._pointed, **pointed}:
                if pointed.get(alias) != self._pointed.get(alias):
                    self._store.save_alias(alias, pointed.get(alias))
            self._pointed = dict(pointed)

    def _tell_model(self, model: Model) -> None:
        told = self._told.setdefault(model.index, _Told(model.name))
        values = self._values(model)
        if told.config is not model.config:
            told.config = model.config
            values |= self._config_values(model)
        news = {k: v for k, v in values.items() if k not in told.values or told.values[k] != v}
        if news:
            told.values |= news
            self._store.save_model(ModelChange(model_name=model.name, **news))
        instances = {c.name: _instance(c, model) for c in self._core.replicas(model)}
        for name, record in instances.items():
            if told.instances.get(name) != record:
                self._store.save_instance(record)
        for name in told.instances.keys() - instances.keys():
            self._store.forget_instance(name)
        told.instances = instances

    def _values(self, model: Model) -> dict[str, Any]:
        facts = {name: getattr(model, name) for name in _FACTS}
        return {
            "status": self._core.status_of(model).state,
            "replicas": model.target if model.is_scaled else None,
            "is_stopped": model.is_stopped,
            "is_pinned": model.is_pinned,
            "facts": {name: value for name, value in facts.items() if value},
        }

    def _config_values(self, model: Model) -> dict[str, Any]:
        raw = self._raws.get(model.name)
        table = raw.table if raw is not None else redacted(msgspec.to_builtins(model.config))
        return {
            "config": table,
            "source": model.config.source,
            "spec_hash": spec_hash(model.config),
            "is_runtime": model.is_runtime,
        }

    # --- store -> core ---

    def recall(self, stored: Stored, now: float) -> list[str]:
        """Take up what a former run left; returns what could not be, in sentences.

        1. A model that no file has, registered at run time: it is registered again.
        2. A model of a file: the operator's wishes hold, but for the count if the file changed.
        3. What was learned holds for the same config.
        4. Aliases, where the model is there and nobody has pointed them meanwhile.
        """
        problems: list[str] = []
        for record in stored.models:
            model = self._core.registry.named(record.model_name)
            if model is not None and not model.is_removed:
                self._recall_wishes(model, record, now)  # 2
            elif model is None and record.is_runtime:
                try:
                    self._register(record, now)  # 1
                except (ConfigProblems, ConfigError, ControlError) as error:
                    problems.append(f"{record.model_name} is not registered again: {error}")
        registry = self._core.registry
        for alias, name in stored.aliases.items():  # 4
            owner = registry.named(name)
            if owner is None or alias in registry.pointed:
                continue
            try:
                self._core.point_alias(alias, owner, now)
            except ControlError as error:
                problems.append(f"alias {alias} does not mean {name} again: {error}")
        return problems

    def _register(self, record: ModelRecord, now: float) -> None:
        raw = RawConfig(record.config, record.source)
        config = resolve(raw)
        created = record.created_at.timestamp() if record.created_at is not None else 0.0
        self._raws[record.model_name] = raw
        model = self._core.registry.add(config, int(created))
        model.is_runtime, model.last_used = True, now
        model.is_stopped, model.is_pinned = record.is_stopped, record.is_pinned
        if record.replicas is not None:
            model.target, model.is_scaled = record.replicas, True
        self._learn(model, record)
        self._changed(model, now)

    def _recall_wishes(self, model: Model, record: ModelRecord, now: float) -> None:
        is_same = record.spec_hash == spec_hash(model.config)
        model.is_pinned = model.is_pinned or record.is_pinned
        if is_same:
            self._learn(model, record)
        if is_same and record.replicas is not None:
            model.target, model.is_scaled = record.replicas, True
        elif record.replicas is not None and not model.is_scaled:
            self._store.save_model(ModelChange(model_name=model.name, replicas=None))
        if record.is_stopped and not model.is_stopped:
            self._core.stop_model(model, False, None, now)
        else:
            self._changed(model, now)

    def _learn(self, model: Model, record: ModelRecord) -> None:  # 3
        for name in _FACTS:
            value = record.facts.get(name)
            if value and not getattr(model, name):
                setattr(model, name, value)

    def _changed(self, model: Model, now: float) -> None:
        self._core.models.changed.add(model.index)
        self._core.models.reconcile(model, now)


def _instance(child: Child, model: Model) -> InstanceRecord:
    return InstanceRecord(
        instance=child.name,
        model_name=model.name,
        status=child.state,
        reason=child.reason or child.removed,
        device=child.device,
        pid=child.pid,
        incarnation=child.incarnation,
        restarts=child.total_restarts,
        is_offline=child.is_offline or bool(child.removed),
        load_s=child.load_s or None,
        memory_bytes=child.need_bytes,
    )
