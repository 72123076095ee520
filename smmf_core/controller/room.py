"""Memory for replicas: asks `swap` with what the Controller knows of devices, models and replicas.

Pure. Owns the facts that come from outside (budgets, free memory, needs); must not start or end
anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from smmf_core.config import ModelConfig, ServerConfig
from smmf_core.controller import swap
from smmf_core.controller.table import Table
from smmf_core.lifecycle import DRAINING, READY, WAITING, Child
from smmf_core.registry import LiveRegistry, Model

GPU_BACKENDS = frozenset({"transformers", "vllm", "embed"})  # of those that "auto" puts on a GPU


class Room:
    """`estimate`: what a replica will need, by its files. `budgets`: bytes by device; a device that
    is missing has no bound. `free`: as last measured. All are the shell's to give."""

    def __init__(self, config: ServerConfig, registry: LiveRegistry, table: Table) -> None:
        self.config = config
        self.estimate: Callable[[ModelConfig], int] = lambda config: 0  # bytes; 0: not known
        self.budgets: dict[str, int] = {}
        self.free: dict[str, int] = {}
        self.waiting: dict[int, Child] = {}  # by the Worker's number: those in the state WAITING
        self._registry = registry
        self._table = table
        self._ended: dict[str, float] = {}  # when a process on a device ended last

    def ask(self, child: Child, model: Model, now: float) -> swap.Plan:
        """Where a replica goes, and who makes room for it."""
        want = self._want(child, model, now)
        policy = self.config.memory.policy
        rivals = len({waiting.model for waiting in self.waiting.values()})
        limit_s = self.config.timeouts.load_wait_s
        return swap.plan(want, self._devices(now), self._holdings(), now, policy, rivals, limit_s)

    def has_room(self, model: Model, now: float) -> bool:
        """Whether one more replica fits beside all that there are."""
        probe = Child("worker", -1, f"{model.name}-+", model.index)
        return isinstance(self.ask(probe, model, now), swap.Fits)

    def all_idle(self, child: Child) -> tuple[str, ...]:
        """Instances that could go for one that ran out of memory."""
        others = [h for h in self._holdings() if h.instance != child.name]
        return swap.clear(devices_of(child), others)

    def next_waiting(self, now: float) -> list[Child]:
        """Who waits for memory, the most urgent first."""
        by_name = {child.name: child for child in self.waiting.values()}
        wants = []
        for child in by_name.values():
            model = self._registry.by_index(child.model)
            if model is not None:
                wants.append(self._want(child, model, now))
        return [by_name[want.instance] for want in swap.order(wants)]

    def ended(self, child: Child, now: float) -> None:
        """Its process is gone; its memory may take a moment."""
        for device in devices_of(child):
            self._ended[device] = now

    def need(self, model: Model) -> int:
        """Bytes of one replica: as configured, else as measured, else as estimated; 0: unknown."""
        given = int(model.config.deployment.memory_gib * swap.GIB)
        return given or model.memory_bytes or self.estimate(model.config)

    def _want(self, child: Child, model: Model, now: float) -> swap.Want:
        deployment = model.config.deployment
        serves = any(c.is_online for c in self._table.replicas(model.index))
        waited = [load.oldest_wait_s for load in model.loads.values() if load.waiting]
        return swap.Want(
            instance=child.name,
            model=model.index,
            need_bytes=self.need(model),
            device=self._place(model),
            gpus=deployment.gpus or _parallel(model.config),
            may_evict=model.is_asked or (model.waiting > 0 and not serves),
            waiting=model.waiting,
            waited_s=max(waited, default=0.0),
            load_s=model.load_s,
        )

    def _place(self, model: Model) -> str:
        """What `device` means here: "auto" is a GPU where there is one and the engine uses it, and
        wherever `gpus` asks for some."""
        deployment = model.config.deployment
        if deployment.device != "auto":
            return deployment.device
        has_gpu = any(name.startswith(swap.CUDA) for name in self.budgets)
        is_fit = has_gpu and model.config.model.backend in GPU_BACKENDS
        return swap.CUDA if is_fit or deployment.gpus else swap.CPU

    def _devices(self, now: float) -> list[swap.Device]:
        budgets = {swap.CPU: UNBOUNDED, **self.budgets}
        return [
            swap.Device(
                name,
                budget,
                self.free.get(name),
                now - self._ended.get(name, -swap.RECOVERY_S) < swap.RECOVERY_S,
            )
            for name, budget in budgets.items()
        ]

    def _holdings(self) -> list[swap.Holding]:
        in_flight = self._table.in_flight()
        return [
            self._holding(child, in_flight.get(child.id, 0))
            for child in self._table.workers()
            if child.device and (child.is_alive or child.state == WAITING)
        ]

    def _holding(self, child: Child, in_flight: int) -> swap.Holding:
        model = self._registry.by_index(child.model)
        is_busy = in_flight > 0 or (model is not None and model.is_busy)
        states = {READY: swap.READY, DRAINING: swap.DRAINING, WAITING: swap.RESERVED}
        return swap.Holding(
            instance=child.name,
            model=child.model,
            devices=devices_of(child),
            need_bytes=child.need_bytes,
            measured_bytes=child.measured_bytes,
            state=states.get(child.state, swap.LOADING),
            is_busy=is_busy,
            is_pinned=model is not None and model.is_pinned,
            last_used=model.last_used if model is not None else 0.0,
            ready_at=child.ready_at or 0.0,
            load_s=child.load_s,
        )


def _parallel(config: ModelConfig) -> int:
    """Devices that an engine is told to spread one replica over, in vLLM's words."""
    counts = [config.engine.get(f"{kind}_parallel_size", 1) for kind in ("tensor", "pipeline")]
    return max(1, math.prod(count for count in counts if isinstance(count, int)))


UNBOUNDED = 1 << 62  # bytes: the budget of RAM until it is told


def devices_of(child: Child) -> tuple[str, ...]:
    return tuple(child.device.split(",")) if child.device else ()
