"""The Router's copy of the registry, and which Workers it can reach.

A Worker counts as up when its Ready (over ZeroMQ) and its descriptors (from the Controller) have
both arrived. Pure; owns the Scheduler's models and workers, must not own requests.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from smmf_core.errors import ApiError
from smmf_core.messages import ModelEntry, Registry, WorkerEntry
from smmf_core.native import _scheduler
from smmf_core.native._scheduler import Scheduler

STRATEGIES = {
    "round_robin": _scheduler.ROUND_ROBIN,
    "least_connections": _scheduler.LEAST_CONNECTIONS,
    "weighted": _scheduler.WEIGHTED,
}
OUT_OF_SERVICE = frozenset({"stopped", "failed", "offline"})


@dataclass(slots=True)
class Model:
    index: int
    name: str
    entry: ModelEntry
    was_ready: bool = False  # had a Worker once: a request now waits for a slot, not for a load


@dataclass(slots=True)
class Replica:
    """One Worker incarnation, as far as it is known."""

    worker: int
    incarnation: int
    instance: str = ""
    model: int = -1
    weight: float = 1.0
    online: bool = True
    slots: int = 0
    is_attached: bool = False
    is_ready: bool = False
    is_up: bool = field(default=False)


class Fleet:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._names: dict[str, Model] = {}  # with aliases
        self.models: dict[int, Model] = {}
        self.workers: dict[int, Replica] = {}
        self.used: set[int] = set()  # models that had a request or a Worker: what reports name
        self.version = -1

    # --- models ---

    def find(self, name: str) -> Model:
        model = self._names.get(name)
        if model is None:
            shown = name if len(name) <= 100 else name[:100] + "..."
            text = f"The model `{shown}` does not exist or you do not have access to it."
            raise ApiError("model_not_found", text, "model")
        return model

    def entries(self) -> list[ModelEntry]:
        """All models in the order of their files."""
        return [self.models[index].entry for index in sorted(self.models)]

    def check_available(self, model: Model) -> None:
        """Raises ApiError `model_unavailable`, with the reason, for a model out of service."""
        entry = model.entry
        if entry.state in OUT_OF_SERVICE:
            why = f": {entry.reason}" if entry.reason else ""
            text = f"The model '{model.name}' is {entry.state}{why}."
            raise ApiError("model_unavailable", text, "model")

    def update(self, registry: Registry) -> list[int]:
        """Take over a new version. Returns keys of requests whose model is gone."""
        self.version = registry.version
        orphans: list[int] = []
        entries = {entry.index: entry for entry in registry.models}
        for index in self.models.keys() - entries.keys():
            orphans += self._scheduler.remove_model(index)
            del self.models[index]
        for index, entry in entries.items():
            model = self.models.get(index)
            if model is None:
                model = self.models[index] = Model(index, entry.name, entry)
            model.entry = entry
            strategy = STRATEGIES[entry.strategy]
            self._scheduler.set_model(index, strategy, entry.max_queue, entry.max_queue_tokens)
        self._names = {name: m for m in self.models.values() for name in m.entry.aliases}
        self._names |= {m.name: m for m in self.models.values()}
        for worker in registry.workers:
            self._describe(worker)
        return orphans

    # --- workers ---

    def attached(self, worker: int, incarnation: int, slots: int) -> None:
        replica = self._incarnation(worker, incarnation)
        replica.is_attached, replica.slots = True, slots
        self._raise(replica)

    def ready(self, worker: int, incarnation: int) -> None:
        replica = self._incarnation(worker, incarnation)
        replica.is_ready = True
        self._raise(replica)

    def down(self, worker: int) -> list[int]:
        """Forget a Worker. Returns the keys of the requests that were open on it."""
        replica = self.workers.pop(worker, None)
        if replica is None or not replica.is_up:
            return []
        return self._scheduler.worker_down(worker)

    def instance_of(self, worker: int) -> str:
        replica = self.workers.get(worker)
        return replica.instance if replica is not None else str(worker)

    @property
    def is_ready(self) -> bool:
        """Whether one model can answer."""
        return any(r.is_up and r.online for r in self.workers.values())

    def _incarnation(self, worker: int, incarnation: int) -> Replica:
        replica = self.workers.get(worker)
        if replica is None or replica.incarnation != incarnation:
            replica = self.workers[worker] = Replica(worker, incarnation)
        return replica

    def _describe(self, entry: WorkerEntry) -> None:
        known = self.workers.get(entry.worker)
        if known is not None and known.incarnation > entry.incarnation:
            return  # the registry's news is older than the Attach's
        replica = self._incarnation(entry.worker, entry.incarnation)
        replica.instance, replica.model = entry.instance, entry.model
        replica.weight, replica.online = entry.weight, entry.online
        if replica.is_up:
            self._scheduler.worker_set(
                replica.worker, replica.slots, replica.weight, replica.online
            )
        self._raise(replica)

    def _raise(self, replica: Replica) -> None:
        if replica.is_up or not (replica.is_attached and replica.is_ready and replica.model >= 0):
            return
        replica.is_up = True
        self.used.add(replica.model)
        self.models[replica.model].was_ready = True
        self._scheduler.worker_up(replica.worker, replica.model, replica.slots, replica.weight)
        if not replica.online:
            self._scheduler.worker_set(replica.worker, replica.slots, replica.weight, False)
