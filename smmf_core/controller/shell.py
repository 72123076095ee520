"""Carries out what the core decides: processes, control connections, rings, the saved state.

Nothing blocks. Owns every descriptor of the Controller; messages to a slow child queue in its
Channel. Must not decide anything about a child's life.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from smmf_core.config import ModelConfig, ServerConfig
from smmf_core.controller import process, vitals
from smmf_core.controller.core import ROUTER, WORKER, ControllerCore, Key
from smmf_core.controller.listeners import Listeners
from smmf_core.controller.process import Process
from smmf_core.controller.run_dir import ChildRecord, RunDir
from smmf_core.controller.specs import Specs
from smmf_core.environments.catalog import UNFIT
from smmf_core.lifecycle import Child
from smmf_core.messages import (
    PROTOCOL,
    Attach,
    Drain,
    Hello,
    Message,
    PeerMetrics,
    RouterReport,
    ToChild,
    Welcome,
    WorkerLost,
    WorkerReport,
)
from smmf_core.native import _ring
from smmf_core.registry import ModelRegistry
from smmf_core.wire.control import Channel, ControlServer

if TYPE_CHECKING:
    import asyncio

RING_BYTES = 1 << 20  # seconds of text at 10,000 tokens/s: a Router never stalls so long
EVENTS_KEPT = 1000


class Event(msgspec.Struct):
    """One change of state, for the operator."""

    time: float  # Unix time
    role: str
    id: str
    former: str
    state: str
    reason: str
    pid: int


def ring_bytes(slots: int) -> int:
    """A power of two in which the reserved room of `slots` terminal records is a small part."""
    size = RING_BYTES
    while size < 4 * slots * _ring.TERMINAL_BYTES:
        size *= 2
    return size


class ControllerShell:
    """Implements core.Effects. `on_change` is told of every new state, after it was recorded."""

    def __init__(
        self, config: ServerConfig, models: list[ModelConfig], run_dir: RunDir, listeners: Listeners
    ) -> None:
        self.config = config
        self.started_at = time.time()
        self.events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self.on_change: Callable[[Child, str], None] = lambda child, former: None
        self.on_settled: Callable[[], None] = lambda: None
        self.run_dir = run_dir
        self.listeners = listeners
        self.processes: dict[Key, Process] = {}
        self._channels: dict[Key, Channel] = {}
        self._server = ControlServer(run_dir.path)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_due = self._is_stale = False
        self._saved: list[ChildRecord] = []
        self._records = run_dir.load()
        former = {r.model: r.model_index for r in self._records if r.model}
        version = max((r.version for r in self._records), default=0)
        registry = ModelRegistry(former, version)
        for model in models:
            registry.add(model, int(self.started_at))
        self.core = ControllerCore(config, registry, self)
        self._specs = Specs(config, registry)

    # --- start ---

    def start(self) -> None:
        """Adopt what a former Controller left, start the rest. Raises ControlError: port in use."""
        now = time.monotonic()
        found = [(r, process.find(r.pid, r.starttime)) for r in self._records if r.pid]
        living = {(r.role, r.id): p for r, p in found if p is not None and r.role != "controller"}
        if not any(role == ROUTER for role, _ in living):
            self.listeners.check_free()
        self.core.plan({r.name: r.id for r in self._records if r.role == WORKER})
        for record in self._records:
            if record.role == "controller":
                continue
            key = (record.role, record.id)
            alive = living.get(key)
            if alive is not None:
                self.processes[key] = alive
            pid = alive.pid if alive is not None else 0
            self.core.adopt(key, record.name, record.incarnation, pid, now)
        routers = [c for c in self.core.routers() if c.pid]
        self.run_dir.clear({(c.id, c.incarnation) for c in routers})
        if not routers:
            for router in self.core.routers():
                self.listeners.get(router.id)
        self.core.start(now)
        self._save()

    def run_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """From here on events come by themselves."""
        self._loop = loop
        loop.add_reader(self._server.fd, self._on_connect)
        for key, alive in self.processes.items():
            loop.add_reader(alive.pidfd, self._on_dead, key)
        self._wake()

    def shut_down(self, force: bool) -> None:
        """Let everything end: at once with `force`, or when it is already ending."""
        self.listeners.close()
        self.core.shut_down(force, time.monotonic())
        self._wake()

    def close(self) -> None:
        """Nothing runs any more. What is still due is not carried out: it would write again."""
        self._loop = None
        for channel in self._channels.values():
            channel.close()
        self.listeners.close()
        self._server.close()
        self.run_dir.forget()

    def tick(self) -> None:
        """Once a second: what no descriptor tells of."""
        process.reap_strangers({p.pid for p in self.processes.values()})
        mine = vitals.dump(self.core)
        dumps = {
            router.id: router.report.metrics
            for router in self.core.routers()
            if isinstance(router.report, RouterReport)
        }
        for router in self.core.routers():
            if router.id in dumps:
                others = [dumped for number, dumped in dumps.items() if number != router.id]
                self.send(router, PeerMetrics([mine, *others]))

    @property
    def now(self) -> float:
        return time.monotonic()

    # --- Effects ---

    def spawn(self, child: Child) -> int:
        number = "--epoch" if child.role == ROUTER else "--incarnation"
        python = self._specs.python(child)
        is_elsewhere = python != sys.executable
        module = "smmf_core.worker.elsewhere" if is_elsewhere else f"smmf_core.{child.role}.main"
        argv = [python, "-m", module]
        argv += ["--run-dir", str(self.run_dir.path), "--id", str(child.id)]
        argv += [number, str(child.incarnation)]
        environment = self.run_dir.package_environment() if is_elsewhere else None
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
        fds = [self.listeners.get(child.id).fileno()] if child.role == ROUTER else []
        self.send(child, message, fds)

    def send(self, child: Child, message: ToChild, fds: list[int] | None = None) -> None:
        channel = self._channels.get(child.key)
        if channel is None:
            return
        fd = channel.fd
        channel.send(message, fds or [])
        if channel.closed:  # it has just died: the loop must not go on watching a number
            self._forget(channel, fd, child)
        self._watch(channel)

    def attach(self, worker: Child, router: Child, slots: int) -> None:
        flags = os.EFD_NONBLOCK | os.EFD_CLOEXEC
        ring = [_ring.create(ring_bytes(slots), slots), os.eventfd(0, flags), os.eventfd(0, flags)]
        endpoint = self.run_dir.endpoint(router.id, router.incarnation)
        message = Attach(
            worker.id, worker.incarnation, router.id, router.incarnation, endpoint, slots
        )
        self.send(router, message, [*ring, self.processes[worker.key].pidfd])
        self.send(worker, message, [*ring, self.processes[router.key].pidfd])
        for fd in ring:
            os.close(fd)

    def publish(self) -> None:
        self._is_stale = True
        self._wake()

    def record(self, child: Child, former: str) -> None:
        event = Event(
            time.time(), child.role, child.name, former, child.state, child.reason, child.pid
        )
        self.events.append(event)
        self.on_change(child, former)
        self._wake()

    # --- the end of a turn ---

    def _wake(self) -> None:
        if not self._is_due and self._loop is not None:
            self._is_due = True
            self._loop.call_soon(self._settle)

    def _settle(self) -> None:
        """Write out once: the registry to Routers, the children's file, the next timer."""
        self._is_due = False
        if self._loop is None:
            return
        if self._is_stale:
            self._is_stale = False
            message = self.core.registry_message()
            for router in self.core.routers():
                if router.connected:
                    self.send(router, message)
        self._save()
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

    def _save(self) -> None:
        records = [self._own_record()]
        names = {m.index: m.name for m in self.core.registry}
        for child in self.core.children.values():
            alive = self.processes.get(child.key)
            records.append(
                ChildRecord(
                    role=child.role,
                    id=child.id,
                    name=child.name,
                    incarnation=child.incarnation,
                    pid=alive.pid if alive is not None else 0,
                    starttime=alive.start_time if alive is not None else 0,
                    model=names.get(child.model, ""),
                    model_index=child.model,
                )
            )
        if records != self._saved:
            self._saved = records
            with contextlib.suppress(OSError):  # disk full, folder gone: only adoption suffers
                self.run_dir.save(records)

    def _own_record(self) -> ChildRecord:
        pid = os.getpid()
        started = process.start_time(pid) or 0
        return ChildRecord(
            "controller", pid=pid, starttime=started, version=self.core.registry.version
        )

    # --- connections ---

    def _on_connect(self) -> None:
        for channel in self._server.accept():
            self._reader(channel, None)

    def _reader(self, channel: Channel, child: Child | None) -> None:
        assert self._loop is not None
        self._loop.add_reader(channel.fd, self._on_readable, channel, child)

    def _on_readable(self, channel: Channel, child: Child | None) -> None:
        fd = channel.fd
        for message, fds in channel.receive():
            if isinstance(message, Hello):
                child = self._on_hello(channel, message, fds)
            else:
                self._close_all(fds)
            if child is None:
                channel.send(Drain(0.0))  # nobody of ours: a child whose record was lost
                channel.close()
                break
            self._on_message(child, message)
        if channel.closed:
            self._forget(channel, fd, child)

    def _on_hello(self, channel: Channel, hello: Hello, fds: list[int]) -> Child | None:
        """Who it is, by its slot and by the kernel's word on its pid; None for a stranger."""
        child = self.core.children.get((hello.role, hello.id))
        alive = self.processes.get(child.key) if child is not None else None
        is_known = alive is not None and alive.pid == hello.pid == channel.peer()[0]
        if child is None or not is_known or child.incarnation != hello.incarnation:
            self._close_all(fds)
            return None
        former = self._channels.get(child.key)
        if former is not None and former is not channel:
            self._forget(former, former.fd, None)
        self._channels[child.key] = channel
        self._reader(channel, child)
        if child.role == ROUTER and fds and not self.core.is_stopping:
            self.listeners.give_back(child.id, fds.pop())
        self._close_all(fds)
        self.core.on_hello(child, hello, self._specs.digest(child), time.monotonic())
        return child

    def _on_message(self, child: Child, message: Message) -> None:
        now = time.monotonic()
        if isinstance(message, WorkerReport):
            self.core.on_worker_report(child, message, now)
        elif isinstance(message, RouterReport):
            self.core.on_router_report(child, message, now)
        elif isinstance(message, WorkerLost):
            self.core.on_worker_lost(child, message, now)

    def _watch(self, channel: Channel) -> None:
        """Have what is queued sent as soon as the child reads again."""
        if channel.is_blocked and not channel.closed and self._loop is not None:
            self._loop.add_writer(channel.fd, self._on_writable, channel)

    def _on_writable(self, channel: Channel) -> None:
        assert self._loop is not None
        fd = channel.fd
        if channel.flush():
            self._loop.remove_writer(fd)
        elif channel.closed:
            self._forget(channel, fd, None)

    def _forget(self, channel: Channel, fd: int, child: Child | None) -> None:
        """A connection ended. `fd` is its descriptor while it was open."""
        assert self._loop is not None
        if fd >= 0:
            self._loop.remove_reader(fd)
            self._loop.remove_writer(fd)
        channel.close()
        if child is not None and self._channels.get(child.key) is channel:
            del self._channels[child.key]
            self.core.on_disconnect(child)

    # --- deaths ---

    def _on_dead(self, key: Key) -> None:
        assert self._loop is not None
        child, dead = self.core.children[key], self.processes.pop(key)
        self._loop.remove_reader(dead.pidfd)
        channel = self._channels.get(key)
        if channel is not None:  # its last words may say why
            fd = channel.fd
            self._on_readable(channel, child)
            if self._channels.get(key) is channel:
                self._forget(channel, fd, child)
        died_of = dead.bury()
        last_words = "" if child.ready_at is not None else process.last_line(self.log_of(child))
        is_unfit = dead.status == UNFIT
        reason = last_words if is_unfit else f"{died_of}: {last_words}" if last_words else died_of
        if child.role == ROUTER:
            self.run_dir.remove_router_socket(child.id, child.incarnation)
        self.core.on_exit(child, reason, time.monotonic(), is_unfit)

    # --- small things ---

    def log_of(self, child: Child) -> Path:
        return self.run_dir.logs / f"{child.role}-{child.id}.log"

    def _close_all(self, fds: list[int]) -> None:
        for fd in fds:
            with contextlib.suppress(OSError):
                os.close(fd)
