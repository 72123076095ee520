"""The Router's copy of the registry, and which Workers it can reach.

A Worker counts as up when its Ready (over ZeroMQ) and its descriptors (from the Controller) have
both arrived. Pure; owns the Scheduler's models and workers, must not own requests.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smmf_core.control_messages import (
    Loading,
    ModelEntry,
    Registry,
    WorkerEntry,
)
from smmf_core.errors import ApiError, CannotStart
from smmf_core.native import _scheduler
from smmf_core.native._scheduler import Scheduler
from smmf_core.plugins import PLACEMENT, load

if TYPE_CHECKING:
    from smmf_core.native._scheduler import Rule

STRATEGIES = {
    "round_robin": _scheduler.ROUND_ROBIN,
    "least_connections": _scheduler.LEAST_CONNECTIONS,
    "weighted": _scheduler.WEIGHTED,
}
OUT_OF_SERVICE = frozenset({"stopping", "stopped", "failed", "offline"})
LATEST = ":latest"
ON_DEMAND = "registered"  # not loaded, its first request loads it


@dataclass(slots=True, eq=False)
class Model:
    """One model as this Router has it."""

    index: int
    name: str
    entry: ModelEntry
    online: int  # Workers in rotation that are up
    is_loaded: bool  # there is one: a request waits for a slot; else it waits for the model
    accepted: int = 0  # requests, since the Router's start
    keep_alive_s: float | None = None  # as the newest request that gave one has it; -1: for ever
    words: int = 0  # how often one has
    loading: Loading | None = None  # how far its load is, and when that was told
    loading_at: float = 0.0

    def keep(self, seconds: float) -> None:
        """A request says how long it is to stay loaded."""
        self.keep_alive_s = seconds
        self.words += 1


@dataclass(slots=True)
class Replica:
    """One Worker that is up: placed on until it dies."""

    worker: int
    incarnation: int
    instance: str
    model: int
    slots: int
    online: bool


def other_form(name: str) -> str:
    """Ollama's clients say `name:latest` for `name`, and the other way round."""
    return name.removesuffix(LATEST) if name.endswith(LATEST) else name + LATEST


def _placement(name: str) -> tuple[int, Rule | None]:
    """The Scheduler's number of a strategy, and the rule of one that is plugged in.

    The configuration was checked by the Controller; a plug-in that is gone since, or fails here
    only, leaves the default in its place.
    """
    if name in STRATEGIES:
        return STRATEGIES[name], None
    try:
        return _scheduler.EXTERNAL, load(PLACEMENT, name)
    except CannotStart:
        return STRATEGIES["least_connections"], None


class Fleet:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._names: dict[str, Model] = {}  # with aliases
        self._adapters: dict[str, tuple[Model, str]] = {}  # "name:adapter"
        self.models: dict[int, Model] = {}
        self.workers: dict[int, Replica] = {}  # those that are up
        self._entries: dict[int, WorkerEntry] = {}
        self._slots: dict[tuple[int, int], int] = {}  # (worker, incarnation) whose ring is here
        self._ready: set[tuple[int, int]] = set()
        self.used: set[int] = set()  # models that had a request or a Worker: what reports name
        self.turned: set[Model] = set()  # those that have become loaded, or are so no more
        self.version = -1
        self._was_settled = False

    # --- models ---

    def find_adapter(self, name: str) -> tuple[Model, str]:
        """The model that a client named, and which of its adapters, if any ("")."""
        return (self._adapters.get(name) if ":" in name else None) or (self.find(name), "")

    def has(self, name: str) -> bool:
        return name in self._names

    def find(self, name: str) -> Model:
        model = self._names.get(name) or self._names.get(other_form(name))
        if model is None:
            shown = name if len(name) <= 100 else name[:100] + "..."
            text = f"The model `{shown}` does not exist or you do not have access to it."
            raise ApiError("model_not_found", text, "model")
        return model

    def entries(self) -> list[ModelEntry]:
        """All models in the order of their files."""
        return [self.models[index].entry for index in sorted(self.models)]

    def unavailable(self, model: Model) -> ApiError | None:
        """`model_unavailable` with the reason, for a model that is out of service or removed."""
        entry = model.entry
        if self.models.get(model.index) is not model:
            return ApiError("model_unavailable", f"The model '{model.name}' was removed.", "model")
        if entry.state not in OUT_OF_SERVICE:
            return None
        why = f": {entry.reason}" if entry.reason else ""
        text = f"The model '{model.name}' is {entry.state}{why}."
        return ApiError("model_unavailable", text, "model", entry.retry_in_s or None)

    def update(self, registry: Registry) -> list[int]:
        """Take over a new version. Returns the keys of requests that wait for a model which is gone
        or out of service; the Scheduler has forgotten them."""
        self.version = registry.version
        self._was_settled = self._was_settled or registry.is_settled
        orphans: list[int] = []
        entries = {entry.index: entry for entry in registry.models}
        for index in self.models.keys() - entries.keys():
            orphans += self._scheduler.remove_model(index)
            del self.models[index]
        for index, entry in entries.items():
            model = self.models.get(index)
            if model is None:
                replicas = self.workers.values()
                online = sum(replica.online for replica in replicas if replica.model == index)
                model = self.models[index] = Model(index, entry.name, entry, online, online > 0)
            elif model.entry == entry:
                continue
            if entry.state != model.entry.state:
                model.loading = None
            model.entry = entry
            if entry.state in OUT_OF_SERVICE:
                orphans += self._scheduler.remove_model(index)
            strategy, rule = _placement(entry.strategy)
            limits = entry.max_queue, entry.max_queue_tokens
            self._scheduler.set_model(index, strategy, *limits, rule)
        self._names = {name: m for m in self.models.values() for name in m.entry.aliases}
        self._names |= {m.name: m for m in self.models.values()}
        self._adapters = {
            f"{name}:{adapter}": (model, adapter)
            for name, model in self._names.items()
            for adapter in model.entry.adapters
        }
        self._entries = {entry.worker: entry for entry in registry.workers}
        for worker in registry.workers:
            self._update_worker(worker)
        return orphans

    # --- workers ---

    def instances(self) -> Iterator[tuple[str, str, bool]]:
        """(instance, its model, whether requests are placed on it) of all that are registered."""
        for entry in self._entries.values():
            model = self.models.get(entry.model)
            replica = self.workers.get(entry.worker)
            if model is not None:
                yield entry.instance, model.name, replica is not None and replica.online

    def attached(self, worker: int, incarnation: int, slots: int) -> None:
        """Its descriptors have arrived."""
        self._slots[worker, incarnation] = slots
        self._raise(worker)

    def ready(self, worker: int, incarnation: int) -> None:
        """It has spoken over ZeroMQ."""
        self._ready.add((worker, incarnation))
        self._raise(worker)

    def down(self, worker: int, incarnation: int) -> list[int]:
        """Forget a Worker. Returns the keys of the requests that were open on it."""
        self._slots.pop((worker, incarnation), None)
        self._ready.discard((worker, incarnation))
        replica = self.workers.get(worker)
        if replica is None or replica.incarnation != incarnation:
            return []
        del self.workers[worker]
        if replica.online:
            self._count(replica.model, -1)
        keys = self._scheduler.worker_down(worker)
        self._raise(worker)  # its successor may be here already
        return keys

    def on_loading(self, loading: Loading, now: float) -> None:
        model = self.models.get(loading.model)
        if model is not None and not model.is_loaded:
            model.loading, model.loading_at = loading, now

    @property
    def is_ready(self) -> bool:
        """Whether one model can answer, and once everything that starts with the server has.

        A model that its first request loads can answer.
        """
        models = self.models.values()
        return self._was_settled and any(m.is_loaded or m.entry.state == ON_DEMAND for m in models)

    def _update_worker(self, entry: WorkerEntry) -> None:
        replica = self.workers.get(entry.worker)
        if replica is not None and replica.incarnation == entry.incarnation:
            if replica.online != entry.online:
                replica.online = entry.online
                self._count(replica.model, 1 if entry.online else -1)
            self._scheduler.worker_set(entry.worker, replica.slots, entry.weight, entry.online)
        self._raise(entry.worker)

    def _raise(self, worker: int) -> None:
        """Bring a Worker up once the registry, its descriptors and its own word are here.

        A new incarnation waits until the death of the old one has been seen.
        """
        entry = self._entries.get(worker)
        if entry is None or worker in self.workers or entry.model not in self.models:
            return
        key = (worker, entry.incarnation)
        if key not in self._ready or key not in self._slots:
            return
        slots = self._slots[key]
        self.workers[worker] = Replica(
            worker, entry.incarnation, entry.instance, entry.model, slots, entry.online
        )
        self.used.add(entry.model)
        self._scheduler.worker_up(worker, entry.model, slots, entry.weight)
        if entry.online:
            self._count(entry.model, 1)
        else:
            self._scheduler.worker_set(worker, slots, entry.weight, False)

    def _count(self, index: int, change: int) -> None:
        """One Worker more or less in rotation; the first and the last turn their model."""
        model = self.models.get(index)
        if model is None:
            return
        model.online += change
        is_loaded = model.online > 0
        if model.is_loaded != is_loaded:
            model.is_loaded = is_loaded
            model.loading = None
            if not (is_loaded or self._scheduler.waiting(index)[0]):
                model.keep_alive_s = None  # what was said of this load is no word on the next
            self.turned.add(model)
