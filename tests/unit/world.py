"""A simulated world around the pure Controller core: processes, Routers, requests, a clock.

Processes load, get ready, die at any time, ignore drains, run out of memory; Routers place counted
requests on what the registry tells them, and report. Checks what must hold at every moment.
"""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import dataclass, field
from typing import Any

from smmf_core.config import Deployment, Model, ModelConfig, Server, ServerConfig, Timeouts
from smmf_core.control_messages import (
    Drain,
    Hello,
    ModelLoad,
    Probe,
    Registry,
    RouterReport,
    WorkerReport,
)
from smmf_core.controller.core import ControllerCore
from smmf_core.controller.table import ROUTER
from smmf_core.errors import CannotStart
from smmf_core.lifecycle import Child
from smmf_core.messages import PROTOCOL
from smmf_core.registry import LiveRegistry

SPEC = "spec"
GIB = 2**30
WISHES = (
    "target", "is_scaled", "is_wanted", "is_on_demand", "is_stopped", "is_pinned", "is_runtime"
)  # fmt: skip
REFUSED = frozenset({"stopped", "stopping", "failed", "offline"})
Key = tuple[str, int]


@dataclass(eq=False)
class Process:
    """One incarnation of a child."""

    child: Child
    incarnation: int
    pid: int
    state: str = "spawned"
    progress: float = 0.0
    fate: str = ""  # "", "die", "hang", "oom": what becomes of its load
    drains: bool = False
    ignores_drain: bool = False
    spec: str = ""  # as it was welcomed with
    is_hung: bool = False  # ready, but beats no more
    is_still: bool = False  # it beats, but its loop says nothing and ends no request
    is_sick: bool = False  # ready, but fails what it is given
    faults: int = 0
    generation: int = 0


@dataclass(eq=False)
class RouterSim:
    """What a Router has: its copy of the registry, and requests as counts."""

    registry: Registry | None = None
    waiting: dict[int, int] = field(default_factory=dict)
    oldest: dict[int, float] = field(default_factory=dict)
    running: dict[tuple[int, int], int] = field(default_factory=dict)  # (worker, incarnation)
    accepted: dict[int, int] = field(default_factory=dict)


class World:
    """Implements core.Effects. `chaos` 0: nothing goes wrong by itself any more."""

    def __init__(self, seed: int, models: list[ModelConfig], budget_gib: float = 0.0) -> None:
        self.random = random.Random(seed)
        self.now = 100.0
        self.chaos = 0.0
        self.processes: dict[Key, Process] = {}
        self.events: list[tuple[float, int, Any]] = []
        self.pids = itertools.count(1000)
        self.order = itertools.count()
        self.is_stale = False
        self.served = self.refused = self.arrived = 0
        self.notes: list[str] = []
        self.routers: dict[int, RouterSim] = {}
        registry = LiveRegistry()
        for config in models:
            registry.add(config, created=1)
        timeouts = Timeouts(drain_s=5, start_s=1, load_s=30, load_wait_s=60, hang_s=20)
        server = Server(routers=self.random.choice((1, 1, 2)))
        self.config = ServerConfig(server, timeouts)
        self.budget = int(budget_gib * GIB)
        self.core = self.new_core(registry)
        self.core.plan({})
        self.core.start(self.now)
        self.settle()
        self.at(1.0, self.tick)

    def new_core(self, registry: LiveRegistry) -> ControllerCore:
        core = ControllerCore(self.config, registry, self)
        if self.budget:
            core.budgets["cpu"] = self.budget
        return core

    def lose_controller(self) -> None:
        """The Controller dies; another one adopts what lives, with the wishes as they were."""
        former = self.core
        known = {model.name: model.index for model in former.registry}
        registry = LiveRegistry(known, former.registry.version)
        for model in former.registry:
            if not model.is_removed:
                again = registry.add(model.config, created=1)
                for wish in WISHES:
                    setattr(again, wish, getattr(model, wish))
        for alias, name in former.registry.pointed.items():
            if (target := registry.named(name)) is not None:
                registry.point_alias(alias, target)
        self.core = self.new_core(registry)
        self.core.plan({child.name: child.id for child in former.workers()})
        for key, child in former.children.items():
            process = self.processes.get(key)
            pid = process.pid if process is not None else 0
            self.core.adopt(key, child.name, child.incarnation, pid, self.now)
            adopted = self.core.children.get(key)
            if adopted is not None:
                adopted.is_offline, adopted.device = child.is_offline, child.device
                adopted.need_bytes = child.need_bytes
            if process is not None and adopted is not None:
                process.child = adopted
                self.at(self.random.choice((0.1, 0.2, 1.0)), self.reconnect, process)
        self.core.start(self.now)
        self.is_stale = True

    def spec_of(self, child: Child) -> str:
        model = self.core.registry.by_index(child.model)
        return f"{SPEC} {model.config.engine}" if model is not None else SPEC

    # --- Effects ---

    def spawn(self, child: Child) -> int:
        assert child.key not in self.processes, f"{child.name} runs already"
        if self.random.random() < self.chaos * 0.05:
            raise self.random.choice([OSError("no more processes"), CannotStart("not installed")])
        process = Process(child, child.incarnation, next(self.pids))
        process.generation = child.generation
        if self.random.random() < self.chaos * 0.3:
            process.fate = self.random.choice(["die", "die", "hang", "oom"])
        process.ignores_drain = self.random.random() < self.chaos * 0.2
        self.processes[child.key] = process
        self.check_budget()
        if child.role == ROUTER:
            self.routers[child.id] = RouterSim()
        self.at(self.random.choice((0.01, 0.1, 0.3)), self.hello, process)
        return process.pid

    def kill(self, child: Child, force: bool) -> None:
        process = self.processes[child.key]
        if force or not process.ignores_drain:
            self.at(0.01, self.die, process, "killed")

    def welcome(self, child: Child) -> None:
        process = self.processes[child.key]
        process.spec = process.spec or self.spec_of(child)
        if process.state == "ready":
            return
        if child.role == ROUTER:
            self.at(0.05, self.become_ready, process)
        elif process.state == "spawned":
            process.state = "loading"
            self.at(0.1, self.load, process)

    def send(self, child: Child, message: Any) -> None:
        process = self.processes.get(child.key)
        if process is not None and process.is_still:
            return
        if process is not None and isinstance(message, Probe):
            self.at(0.1, self.answer_probe, process)
        elif process is not None and isinstance(message, Drain) and not process.ignores_drain:
            process.drains = True
            self.at(0.02, self.try_end, process)

    def attach(self, worker: Child, router: Child, slots: int) -> None:
        assert slots > 0
        assert worker.key in self.processes
        assert router.key in self.processes

    def publish(self) -> None:
        self.is_stale = True

    def record(self, child: Child, former: str) -> None:
        assert child.state != former or not child.is_alive

    def note(self, kind: str, name: str, text: str) -> None:
        self.notes.append(f"{name}: {text}")
        if text.startswith("unloaded"):
            model = self.core.registry.named(name)
            assert model is not None
            if "failed" not in text:
                assert not model.is_pinned, f"a pinned model was {text}"
                assert "had its turn" in text or not model.is_busy, f"busy, but {text}"

    # --- the life of a process ---

    def hello(self, process: Process) -> None:
        if not self.lives(process):
            return
        child = process.child
        state = "starting" if child.role == ROUTER else "loading"
        said = Hello(PROTOCOL, "b", *child.key, process.incarnation, process.pid, "", state, [])
        self.core.on_hello(child, said, self.spec_of(child), self.now)

    def reconnect(self, process: Process) -> None:
        """To the Controller that has adopted it."""
        if not self.lives(process) or process.is_hung or not process.child.adopting:
            return
        child, state = process.child, process.state
        if process.drains:
            state = "draining"
        elif state == "spawned":
            state = "starting" if child.role == ROUTER else "loading"
        said = Hello(
            PROTOCOL, "b", *child.key, process.incarnation, process.pid, process.spec, state, []
        )
        self.core.on_hello(child, said, self.spec_of(child), self.now)

    def load(self, process: Process) -> None:
        """A step of its load."""
        if not self.lives(process):
            return
        if process.fate in ("die", "oom") and self.random.random() < 0.5:
            reason = "Out of memory: 9 GiB" if process.fate == "oom" else "no such file"
            self.report(process, "failed", reason)
            self.at(0.02, self.die, process, "exited with status 1")
            return
        if process.fate == "hang" and process.progress > 0.3:
            return
        process.progress = min(1.0, process.progress + self.random.random() * 0.5)
        if process.progress == 1.0:
            self.become_ready(process)
        else:
            self.report(process, "loading")
            self.at(self.random.choice((0.1, 0.5, 2.0)), self.load, process)

    def become_ready(self, process: Process) -> None:
        if self.lives(process):
            process.state = "ready"
            self.report(process, "ready")

    def report(self, process: Process, state: str, reason: str = "") -> None:
        child = process.child
        if child.adopting:
            return  # it has not found the new Controller yet
        if child.role == ROUTER:
            self.report_router(child, self.routers[child.id])
            return
        running = sum(
            r.running.get((child.id, process.incarnation), 0) for r in self.routers.values()
        )
        said = WorkerReport(state, process.progress, reason, 4096, ["chat"], running, 0, 0, 0)
        said.faults = process.faults
        self.core.on_worker_report(child, said, self.now)

    def answer_probe(self, process: Process) -> None:
        if self.lives(process) and not process.is_hung:
            self.core.upkeep.on_probed(process.child, not process.is_sick, 0.1)

    def try_end(self, process: Process) -> None:
        """It drains: ends once nothing is open on it."""
        if not self.lives(process):
            return
        key = (process.child.id, process.incarnation)
        if any(router.running.get(key) for router in self.routers.values()):
            self.at(0.5, self.try_end, process)
        else:
            self.die(process, "exited with status 0")

    def die(self, process: Process, reason: str) -> None:
        if not self.lives(process):
            return
        child = process.child
        del self.processes[child.key]
        if child.role == ROUTER:
            dead = self.routers.pop(child.id)
            self.refused += sum(dead.waiting.values()) + sum(dead.running.values())
        else:
            for router in self.routers.values():  # what was open waits again
                count = router.running.pop((child.id, process.incarnation), 0)
                if count:
                    self.enqueue(router, child.model, count)
        self.core.on_exit(child, reason, self.now)

    def lives(self, process: Process) -> bool:
        return self.processes.get(process.child.key) is process

    # --- requests ---

    def arrive(self, index: int) -> None:
        if not self.routers:
            return
        self.arrived += 1
        router = self.random.choice(list(self.routers.values()))
        router.accepted[index] = router.accepted.get(index, 0) + 1
        self.enqueue(router, index, 1)

    def enqueue(self, router: RouterSim, index: int, count: int) -> None:
        if not router.waiting.get(index):
            router.oldest[index] = self.now
        router.waiting[index] = router.waiting.get(index, 0) + count

    def place(self) -> None:
        """What waits goes to workers in rotation, is refused, or asks for a load."""
        for router in self.routers.values():
            if router.registry is None:
                continue
            entries = {entry.index: entry for entry in router.registry.models}
            for index, count in list(router.waiting.items()):
                entry = entries.get(index)
                if entry is None or entry.state in REFUSED:
                    self.refused += count
                    del router.waiting[index]
                    continue
                workers = [
                    (w.worker, w.incarnation)
                    for w in router.registry.workers
                    if w.model == index and w.online and self.is_up(w.worker, w.incarnation)
                ]
                if workers and count:
                    chosen = self.random.choice(workers)
                    router.running[chosen] = router.running.get(chosen, 0) + count
                    del router.waiting[index]
                elif count and entry.state == "registered":
                    self.core.on_load_wanted(index, self.now)

    def is_up(self, worker: int, incarnation: int) -> bool:
        process = self.processes.get(("worker", worker))
        return (
            process is not None
            and process.state == "ready"
            and (process.incarnation == incarnation)
        )

    def finish(self, share: float) -> None:
        still = {(p.child.id, p.incarnation) for p in self.processes.values() if p.is_still}
        for router in self.routers.values():
            for key, count in list(router.running.items()):
                if self.random.random() < share and key not in still:
                    self.served += count
                    del router.running[key]

    def report_router(self, child: Child, router: RouterSim) -> None:
        running: dict[int, int] = {}
        for (worker, _), count in router.running.items():
            model = self.core.children["worker", worker].model
            running[model] = running.get(model, 0) + count
        used = {*router.accepted, *router.waiting, *running}
        loads = [
            ModelLoad(
                index,
                router.waiting.get(index, 0),
                running.get(index, 0),
                router.accepted.get(index, 0),
                self.now - router.oldest.get(index, self.now) if router.waiting.get(index) else 0.0,
            )
            for index in sorted(used)
        ]
        workers = [(worker, count) for (worker, _), count in router.running.items()]
        self.core.on_router_report(child, RouterReport(loads, workers, 0, "ready", b""), self.now)

    # --- time ---

    def at(self, delay_s: float, act: Any, *args: Any) -> None:
        heapq.heappush(self.events, (self.now + delay_s, next(self.order), (act, args)))

    def tick(self) -> None:
        self.at(1.0, self.tick)
        for key, process in list(self.processes.items()):
            if process.state != "ready" or process.child.adopting or not self.lives(process):
                continue
            if key[0] == ROUTER:
                self.report_router(process.child, self.routers[key[1]])
            elif not process.is_hung:
                self.core.on_heartbeat(process.child, self.now)
                process.faults += 30 * process.is_sick
                if not process.is_still:
                    self.report(process, "draining" if process.drains else "ready")
        self.core.on_tick(self.now)

    def pass_time(self, seconds: float) -> None:
        """Everything that is due until then happens, in order."""
        until = self.now + seconds
        while True:
            due = self.events[0][0] if self.events else float("inf")
            deadline = self.core.next_deadline
            if min(due, deadline) > until:
                break
            if deadline < due:
                self.now = max(self.now, deadline)
                self.core.on_timer(self.now)
            else:
                self.now = max(self.now, due)
                act, args = heapq.heappop(self.events)[2]
                act(*args)
            self.settle()
        self.now = until

    def settle(self) -> None:
        """The end of a turn: Routers are told, and place what waits."""
        for _ in range(3):
            if self.is_stale:
                self.is_stale = False
                message = self.core.registry_message(self.now)
                self.check_message(message)
                for router in self.routers.values():
                    router.registry = message
            self.place()
            if not self.is_stale:
                break
        self.check()

    # --- what must always hold ---

    def check(self) -> None:
        for key, process in self.processes.items():
            child = self.core.children.get(key)
            assert child is process.child, f"{process.child.name} runs and belongs to nobody"
            assert child.is_alive, f"{child.name} runs and is {child.state}"
            assert child.incarnation == process.incarnation
        for child in self.core.children.values():
            if child.is_alive:
                assert child.key in self.processes, f"{child.name} is {child.state} without process"

    def check_budget(self) -> None:
        if not self.budget:
            return
        held = sum(p.child.need_bytes for k, p in self.processes.items() if k[0] != ROUTER)
        assert held <= self.budget, f"{held / GIB:.1f} GiB of {self.budget / GIB:.1f} are taken"

    def check_message(self, message: Registry) -> None:
        indexes = {entry.index for entry in message.models}
        assert len(indexes) == len(message.models)
        names = [name for e in message.models for name in (e.name, *e.aliases)]
        assert len(set(names)) == len(names), "a name means two models"
        for entry in message.workers:
            assert entry.model in indexes
            assert ("worker", entry.worker) in self.core.children


def config(name: str, gib: float = 0.0, **deployment: Any) -> ModelConfig:
    return ModelConfig(
        Model(name, "echo"), Deployment(max_concurrency=4, memory_gib=gib, **deployment)
    )
