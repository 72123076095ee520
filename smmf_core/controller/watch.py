"""What the core must know from outside: budgets, free memory, what models need and instances take.

Owns a thread that asks driver, kernel and files, so that the loop does not wait for them; must not
decide anything. `prepare` before the first start, `tick` once a second; what a look found is taken
over by the next tick.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from smmf_core.config import ModelConfig, ServerConfig
from smmf_core.controller import gpus, need, process, vitals
from smmf_core.controller.core import ControllerCore
from smmf_core.controller.page_cache import Candidate, Popularity, ReadAhead, choose
from smmf_core.controller.room import GPU_BACKENDS, devices_of
from smmf_core.controller.swap import CPU, CUDA
from smmf_core.controller.weights import weight_files
from smmf_core.engines.host_memory import free_bytes
from smmf_core.lifecycle import LOADING, READY, STARTING, Child
from smmf_core.registry import Model

FIRST_LOOK = 2  # ticks after the start, which is not to be slowed by opening the driver
INSTANCES_EVERY = 5  # looks between two at what instances take: that reads all of /proc
FILES_EVERY = 30  # ticks between two decisions which weights should be in the page cache
GROWTH = 1.05  # what an instance takes is remembered when it is so much more than before


@dataclass(slots=True)
class Seen:
    """What one look found."""

    gpus: list[gpus.Gpu]
    free: dict[str, int]
    taken: dict[str, int] = field(default_factory=dict)  # by instance: bytes, where it was placed


class Look(threading.Thread):
    """A daemon: a driver that hangs keeps neither the loop nor the process's end waiting."""

    def __init__(self, ask: Callable[[], Seen]) -> None:
        super().__init__(name="watch", daemon=True)
        self.found: Seen | None = None
        self._ask = ask
        self.start()

    def run(self) -> None:
        self.found = self._ask()


class Watch:
    """`gpus`: as last seen."""

    def __init__(self, config: ServerConfig, visible: str | None) -> None:
        """`visible`: this process's own CUDA_VISIBLE_DEVICES."""
        self.gpus: list[gpus.Gpu] = []
        self._memory = config.memory
        self._budgets = gpus.budgets(config.memory, [])
        self._visible = visible
        self._nvml: gpus.Nvml | None = None  # opened by the first look
        self._needs: dict[str, tuple[ModelConfig, int]] = {}  # by the model's name
        self._look: Look | None = None
        self._ticks = 0
        self._files = Files()

    # --- before the first start, and whenever a replica is started ---

    def prepare(self, core: ControllerCore) -> None:
        """The driver is asked at once only where a model may go to a GPU: opening it may take a
        second."""
        if any(_may_use_gpu(model.config) for model in core.registry):
            self._nvml = gpus.Nvml(self._visible)
            self.gpus = self._nvml.gpus()
        core.room.estimate = self.estimate
        self.tell_budgets(core)

    def estimate(self, config: ModelConfig) -> int:
        """Bytes of one replica; remembered, or by a few short reads of its files' headers."""
        known = self._needs.get(config.model.name)
        if known is None or known[0] is not config:
            known = config, need.estimate(config, self._place(config))
            self._needs[config.model.name] = known
        return known[1]

    def environment(self, device: str) -> dict[str, str]:
        """For a Worker that was placed there: which GPUs it sees."""
        return gpus.environment(tuple(device.split(",")), self.gpus)

    # --- once a second ---

    def tick(self, core: ControllerCore, now: float) -> None:
        """Take over what the last look found, begin the next one."""
        if self._look is not None and not self._look.is_alive():
            if self._look.found is not None:
                self._take_over(self._look.found, core, now)
            self._look = None
        if self._look is None and self._ticks >= FIRST_LOOK:
            counts = self._ticks % INSTANCES_EVERY == FIRST_LOOK
            running = [child for child in core.workers() if child.pid] if counts else []
            self._look = Look(lambda: self._see(running))
        self._files.count(core, now)
        if any(child.state in (STARTING, LOADING) for child in core.workers()):
            self._files.pause()
        elif self._ticks % FILES_EVERY == 0:
            self._files.keep(core, self._budgets[CPU], now)
        self._ticks += 1

    def close(self) -> None:
        self._files.close()

    # --- in the thread ---

    def _see(self, running: list[Child]) -> Seen:
        if self._nvml is None:
            self._nvml = gpus.Nvml(self._visible)
        seen = self._nvml.gpus()
        found = Seen(seen, gpus.free(self._memory, seen))
        if running:
            found.taken = _taken(running, seen)
        return found

    # --- in the loop ---

    def _take_over(self, seen: Seen, core: ControllerCore, now: float) -> None:
        self.gpus = seen.gpus
        self.tell_budgets(core)
        for child in core.workers():
            if child.name in seen.taken and child.pid:
                self._tell_memory(child, seen.taken[child.name], core)
        core.on_memory(seen.free, now)

    def _tell_memory(self, child: Child, taken: int, core: ControllerCore) -> None:
        """The most that a replica has taken is what the next one needs."""
        model = core.registry.by_index(child.model)
        if model is None:
            return
        core.upkeep.on_memory(child, taken, self._allowed_bytes(child, model))
        is_current = child.state == READY and child.generation == model.generation
        if is_current and taken > model.memory_bytes * GROWTH:
            model.memory_bytes = taken
            core.models.changed.add(model.index)

    def _allowed_bytes(self, child: Child, model: Model) -> int:
        """`memory_gib`, else all of its devices; 0: exempt, or not known."""
        config = model.config
        if need.preallocates(config, self._place(config)):
            return 0
        totals = {CPU: gpus.ram_bytes(), **{gpu.name: gpu.total_bytes for gpu in self.gpus}}
        given = int(config.deployment.memory_gib * need.GIB)
        return given or sum(totals.get(device, 0) for device in devices_of(child))

    def tell_budgets(self, core: ControllerCore) -> None:
        """They change with `[memory]`, and when cards come or go; needs may be shares of them."""
        budgets = gpus.budgets(self._memory, self.gpus)
        if budgets == core.budgets:
            return
        self._needs.clear()
        self._budgets = budgets
        core.budgets.clear()
        core.budgets.update(budgets)

    def _place(self, config: ModelConfig) -> need.Place:
        return gpus.find_place(config, self.gpus, self._budgets)


class Files:
    """Keeps the weights of models that are asked for often, and not loaded, in the page cache."""

    def __init__(self) -> None:
        self._read_ahead = ReadAhead()
        self._popularity = Popularity()
        self._accepted: dict[int, int] = {}  # by model, as last counted

    def count(self, core: ControllerCore, now: float) -> None:
        """Routers that start again count from 0."""
        for model in core.registry:
            accepted = sum(load.accepted for load in model.loads.values())
            added = accepted - self._accepted.get(model.index, 0)
            if added:
                self._accepted[model.index] = accepted
                self._popularity.used(model.index, max(0, added), now)

    def pause(self) -> None:
        """A load needs the disk."""
        self._read_ahead.wish([])

    def keep(self, core: ControllerCore, budget_bytes: int, now: float) -> None:
        """As many as fit beside what is loaded."""
        held = sum(c.need_bytes for c in core.workers() if c.is_alive and CPU in devices_of(c))
        candidates = [
            candidate
            for model in core.registry
            if not any(child.is_alive for child in core.replicas(model))
            and (score := self._popularity.score(model.index, now)) > 0
            and (candidate := _candidate(model, score)) is not None
        ]
        room = min(budget_bytes - held, free_bytes())
        self._read_ahead.wish(choose(candidates, room))

    def close(self) -> None:
        self._read_ahead.close()


def _taken(running: list[Child], seen: list[gpus.Gpu]) -> dict[str, int]:
    """By instance: of its GPUs where it was placed on some, else resident; with all processes that
    it started."""
    shares = vitals.gpu_shares(running, seen)
    families = process.sessions()
    taken = {}
    for child in running:
        if child.device.startswith(CUDA):
            taken[child.name] = sum(size for _, size in shares.get(child.name, {}).values())
        else:
            pids = families.get(child.pid, {child.pid})
            taken[child.name] = sum(process.memory_bytes(pid) for pid in pids)
    return taken


def _candidate(model: Model, score: float) -> Candidate | None:
    if not model.config.model.path:
        return None
    files = weight_files(Path(model.config.model.path).expanduser())
    try:
        return Candidate(score, tuple(files), sum(file.stat().st_size for file in files))
    except OSError:
        return None


def _may_use_gpu(config: ModelConfig) -> bool:
    device = config.deployment.device
    on_auto = config.model.backend in GPU_BACKENDS or bool(config.deployment.gpus)
    return device.startswith(CUDA) or (device == "auto" and on_auto)
