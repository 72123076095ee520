"""Carries out what the core decides: processes, rings, the registry for Routers, the saved state.

Nothing blocks. Owns the processes and the end of each turn, when what has changed is written out
once. Must not decide anything about a child's life.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smmf_core.config import ModelConfig, RawConfig, ServerConfig
from smmf_core.config.load import Sources
from smmf_core.control_messages import (
    Attach,
    Heartbeat,
    Hello,
    Inspected,
    LoadWanted,
    Probed,
    RouterReport,
    ToChild,
    Welcome,
    WorkerLost,
    WorkerReport,
)
from smmf_core.controller import process, vitals, wishes
from smmf_core.controller.access import Access
from smmf_core.controller.connections import Connections, close_all
from smmf_core.controller.core import ControllerCore
from smmf_core.controller.journal import Journal
from smmf_core.controller.listeners import Ports
from smmf_core.controller.log_files import LogFiles
from smmf_core.controller.new_ring import new_ring
from smmf_core.controller.process import Process
from smmf_core.controller.questions import Questions
from smmf_core.controller.reload import ReloadResult, reload
from smmf_core.controller.remember import Remembrance
from smmf_core.controller.roster import Roster
from smmf_core.controller.run_dir import ChildRecord, RunDir
from smmf_core.controller.specs import Specs
from smmf_core.controller.table import ROUTER, WORKER, Key
from smmf_core.controller.watch import Watch
from smmf_core.environments.catalog import UNFIT
from smmf_core.lifecycle import Child
from smmf_core.messages import PROTOCOL, Message
from smmf_core.registry import LiveRegistry
from smmf_core.store.records import EventRecord, Stored
from smmf_core.store.writer import Store

if TYPE_CHECKING:
    import asyncio

STORE_CLOSE_S = 3.0  # how long the end waits for what the store has not written yet
Event = EventRecord


class ControllerShell:
    """Implements core.Effects and connections.Listener.

    `on_change` is told of every new state, after it was recorded; `raws` are the models' files with
    their references, by name: whoever registers a model puts its there first.
    """

    def __init__(
        self,
        config: ServerConfig,
        models: list[ModelConfig],
        run_dir: RunDir,
        ports: Ports,
        store: Store | None = None,
    ) -> None:
        self.config = config
        self.run_dir = run_dir
        self.ports = ports
        self.store = store
        self._journal = Journal(store)
        self.events = self._journal.events
        self.processes: dict[Key, Process] = {}
        self.sources: Sources | None = None  # the files that it was started with
        self.raws: dict[str, RawConfig] = {}
        self.on_change: Callable[[Child, str], None] = lambda child, former: None
        self.on_settled: Callable[[], None] = lambda: None  # after each turn
        self.on_certificate: Callable[[], None] = lambda: None  # it is to be read again
        self.on_kept: Callable[[], None] = lambda: None  # after wishes have changed
        self.started_at = time.time()
        self._connections = Connections(run_dir.path, self)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_stale = self._is_due = self._is_recalled = False
        self._touched: set[int] = set()  # models of which the store may have to hear
        self._records = run_dir.load()
        self._roster = Roster(run_dir)
        former = wishes.load(run_dir.path) if self._records else wishes.Wishes()
        known = {wish.name: wish.index for wish in former.models}
        version = max((record.version for record in self._records), default=0)
        registry = LiveRegistry(known, version)
        for model in models:
            registry.add(model, int(self.started_at))
        wishes.restore(registry, former, self.raws)
        self.core = ControllerCore(config, registry, self)
        self.core.unix_offset_s = time.time() - time.monotonic()
        self.watch = Watch(config, os.environ.get("CUDA_VISIBLE_DEVICES"))
        self.log_files = LogFiles(run_dir.logs, config.log.retention_days)
        self._specs = Specs(config, registry)
        self._questions = Questions(self.send)
        self.access = Access(config, run_dir.path, store, self._connections.send, self.core.routers)
        self._memory = Remembrance(self.core, self.raws, store) if store is not None else None

    # --- start and end ---

    def start(self, first: Stored | None = None) -> None:
        """Adopt what a former Controller left, start the rest. `first`: what a first look into the
        store's database has found.

        Raises ControlError: port in use; or nobody would need a key, and other machines reach it.
        """
        now = time.monotonic()
        found = [(r, process.find(r.pid, r.starttime)) for r in self._records if r.pid]
        living = {(r.role, r.id): p for r, p in found if p is not None and r.role != "controller"}
        adopted = {number for role, number in living if role == ROUTER}
        self.core.plan({r.name: r.id for r in self._records if r.role == WORKER})
        self.access.begin(adopted, first)
        if not adopted:
            self.access.check_start()
            self.ports.check_free()
        for record in self._records:
            if record.role != "controller":
                self._adopt(record, living.get((record.role, record.id)), now)
        routers = [c for c in self.core.routers() if c.pid]
        self.run_dir.clear({(c.id, c.incarnation) for c in routers})
        if not routers:
            for router in self.core.routers():
                self.ports.fds(router.id)
        self.watch.prepare(self.core)
        self.core.start(now)
        self._roster.save(self.core, self.processes)

    def _adopt(self, record: ChildRecord, alive: Process | None, now: float) -> None:
        key = (record.role, record.id)
        if alive is not None:
            self.processes[key] = alive
        pid = alive.pid if alive is not None else 0
        self.core.adopt(key, record.name, record.incarnation, pid, now)
        child = self.core.children.get(key)
        if child is not None:
            child.is_offline, child.device = record.is_offline, record.device
            child.need_bytes = record.need_bytes

    def run_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """From here on events come by themselves."""
        self._loop = loop
        self._connections.run_on(loop)
        for key, alive in self.processes.items():
            loop.add_reader(alive.pidfd, self._on_dead, key)
        self._wake()

    def open_store(self) -> None:
        """From here on the store is heard, and told."""
        if self.store is not None and self._loop is not None:
            self.store.load(self._loaded)

    def shut_down(self, force: bool) -> None:
        """Let everything end: at once with `force`, or when it is already ending."""
        self.ports.close()
        self.core.shut_down(force, time.monotonic())
        self._wake()

    def close(self) -> None:
        """Nothing runs any more. What is still due is not carried out: it would write again."""
        self._loop = None
        self._connections.close()
        self.watch.close()
        self.ports.close()
        self.access.close()
        if self.store is not None:
            self.store.close(STORE_CLOSE_S)
        wishes.forget(self.run_dir.path)
        self.run_dir.forget()

    def reload(self) -> ReloadResult:
        """Read the files again. Raises ConfigError, and nothing has changed; ControlError."""
        result = reload(self)
        self._wake()
        return result

    def restart_routers(self) -> None:
        """They finish what is open, and start again with what the server's settings are now."""
        for router in self.core.routers():
            self.core.lives.stop(router, time.monotonic(), drains=True)

    # --- once a second ---

    def tick(self) -> None:
        """What no descriptor tells of."""
        now = time.monotonic()
        process.reap_strangers({p.pid for p in self.processes.values()})
        self.watch.tick(self.core, now)
        self.core.on_tick(now)
        living = {self.log_of(child).name for child in self.core.children.values() if child.pid}
        self.log_files.tend(living)
        if self._memory is not None and (news := self._memory.news()):
            self.note("model", "registry", news)
        vitals.share(self.core, self.watch.gpus, self.send)

    @property
    def now(self) -> float:
        return time.monotonic()

    # --- the store ---

    def _loaded(self, stored: Stored) -> None:
        """In the store's thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has just ended
                self._loop.call_soon_threadsafe(self.on_stored, stored)

    def on_stored(self, stored: Stored) -> None:
        """What a former run left is known."""
        if self._loop is None or self._memory is None or self.core.is_stopping:
            return
        self.access.learn(stored)
        for problem in self._memory.recall(stored, time.monotonic()):
            self.note("model", "registry", problem)
        if not self._is_recalled:
            self._is_recalled = True
            self._journal.recall(stored.events)
            self._touched |= {model.index for model in self.core.registry}
            self.core.complete()

    # --- Effects ---

    def spawn(self, child: Child) -> int:
        number = "--epoch" if child.role == ROUTER else "--incarnation"
        python = self._specs.python(child)
        is_elsewhere = python != sys.executable
        module = "smmf_core.worker.elsewhere" if is_elsewhere else f"smmf_core.{child.role}.main"
        argv = [python, "-m", module]
        argv += ["--run-dir", str(self.run_dir.path), "--id", str(child.id)]
        argv += [number, str(child.incarnation)]
        environment = self.run_dir.package_environment() if is_elsewhere else dict(os.environ)
        environment |= self.watch.environment(child.device)
        started = process.spawn(argv, self.log_of(child), environment)
        self.processes[child.key] = started
        if self._loop is not None:
            self._loop.add_reader(started.pidfd, self._on_dead, child.key)
        return started.pid

    def kill(self, child: Child, force: bool) -> None:
        self.processes[child.key].signal(signal.SIGKILL if force else signal.SIGTERM)

    def welcome(self, child: Child) -> None:
        timeouts = self.config.timeouts
        message = Welcome(PROTOCOL, self._specs.of(child), timeouts.grace_s, timeouts.drain_s)
        fds = self.ports.fds(child.id) if child.role == ROUTER else []
        self._connections.send(child, message, fds)
        if child.role == ROUTER:
            self.access.welcome(child)

    def send(self, child: Child, message: ToChild) -> None:
        self._connections.send(child, message)

    def attach(self, worker: Child, router: Child, slots: int) -> None:
        ring = new_ring(slots)
        endpoint = self.run_dir.endpoint(router.id, router.incarnation)
        message = Attach(
            worker.id, worker.incarnation, router.id, router.incarnation, endpoint, slots
        )
        self._connections.send(router, message, [*ring, self.processes[worker.key].pidfd])
        self._connections.send(worker, message, [*ring, self.processes[router.key].pidfd])
        close_all(ring)

    def publish(self) -> None:
        self._is_stale = True
        self._wake()

    def record(self, child: Child, former: str) -> None:
        self._journal.changed(child, former)
        self._touched.add(child.model)
        self.on_change(child, former)
        self._wake()

    def note(self, kind: str, name: str, text: str) -> None:
        self._journal.note(kind, name, text)
        self._wake()

    # --- the end of a turn ---

    def _wake(self) -> None:
        if not self._is_due and self._loop is not None:
            self._is_due = True
            self._loop.call_soon(self._settle)

    def _settle(self) -> None:
        """Write out once: the registry to Routers, what is kept, the next timer."""
        self._is_due = False
        if self._loop is None:
            return
        if self._is_stale:
            self._is_stale = False
            message = self.core.registry_message(time.monotonic())
            for router in self.core.routers():
                if router.connected:
                    self.send(router, message)
        self._roster.save(self.core, self.processes)
        self._keep()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self.core.next_deadline
        if deadline < float("inf"):
            delay_s = max(0.0, deadline - time.monotonic())
            self._timer = self._loop.call_later(delay_s, self._on_timer)
        self.on_settled()

    def _on_timer(self) -> None:
        self._timer = None
        self.core.on_timer(time.monotonic())
        self._wake()

    def _keep(self) -> None:
        """Wishes go to the run directory, and to the store once it has been read."""
        changed, self.core.models.changed = self.core.models.changed, set()
        if changed and not self.core.is_stopping:
            wishes.save(self.run_dir.path, self.core.registry, self.raws)
            self.on_kept()
        self._touched |= changed
        if self._memory is not None and self._is_recalled and self._touched:
            touched, self._touched = self._touched, set()
            self._memory.tell(touched)

    # --- what comes in ---

    def identify(self, hello: Hello, pid: int) -> Child | None:
        """By its slot, and by the kernel's word on its pid."""
        child = self.core.children.get((hello.role, hello.id))
        alive = self.processes.get(child.key) if child is not None else None
        is_known = alive is not None and alive.pid == hello.pid == pid
        if child is None or not is_known or child.incarnation != hello.incarnation:
            return None
        return child

    def on_hello(self, child: Child, hello: Hello, fds: list[int]) -> None:
        if child.role == ROUTER and fds and not self.core.is_stopping:
            self.ports.give_back(child.id, fds)
        close_all(fds)
        self.core.on_hello(child, hello, self._specs.digest(child), time.monotonic())

    def on_message(self, child: Child, message: Message) -> None:
        now = time.monotonic()
        if isinstance(message, Heartbeat):
            self.core.on_heartbeat(child, now)
        elif isinstance(message, WorkerReport):
            self.core.on_worker_report(child, message, now)
        elif isinstance(message, RouterReport):
            self.access.used(message.usage)
            self.core.on_router_report(child, message, now)
        elif isinstance(message, WorkerLost):
            self.core.on_worker_lost(child, message, now)
        elif isinstance(message, LoadWanted):
            self.core.on_load_wanted(message.model, now)
        elif isinstance(message, Probed):
            self.core.upkeep.on_probed(child, message.ok, message.seconds)
        elif isinstance(message, Inspected):
            self._questions.answered(child, message)

    def on_disconnect(self, child: Child) -> None:
        self.core.on_disconnect(child)

    async def inspect(self, child: Child) -> dict[str, Any]:
        """An instance's own account of its state. Raises ControlError when it cannot be asked, or
        ends before it has answered."""
        return await self._questions.inspect(child)

    def _on_dead(self, key: Key) -> None:
        assert self._loop is not None
        child, dead = self.core.children[key], self.processes.pop(key)
        self._loop.remove_reader(dead.pidfd)
        self._connections.take_last_words(child)
        self._questions.died(child)
        died_of = dead.bury()
        last_words = "" if child.ready_at is not None else process.last_line(self.log_of(child))
        is_unfit = dead.status == UNFIT
        reason = last_words if is_unfit else f"{died_of}: {last_words}" if last_words else died_of
        if child.role == ROUTER:
            self.access.forget_router(child.id)
            self.run_dir.remove_router_socket(child.id, child.incarnation)
        self.core.on_exit(child, reason, time.monotonic(), is_unfit)

    # --- small things ---

    def log_of(self, child: Child) -> Path:
        return self.run_dir.log_of(child.role, child.name)
