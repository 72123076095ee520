"""The Router's side of the control socket: what it is told to be, and what it reports.

Owns the Router's state as the Controller sees it, its listening sockets and its end; must not touch
requests.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from smmf_core import __version__
from smmf_core.config import ServerConfig
from smmf_core.control_messages import (
    Attach,
    Detach,
    Drain,
    Hello,
    Keys,
    Loading,
    LoadWanted,
    PeerMetrics,
    ReadCertificate,
    Registry,
    RouterReport,
    Welcome,
    WorkerLost,
)
from smmf_core.http.access_log import access_log
from smmf_core.http.protocol import ServerState
from smmf_core.messages import PROTOCOL
from smmf_core.native._limits import LimitTable
from smmf_core.router.shell import RouterShell
from smmf_core.router.tls import RouterTls
from smmf_core.wire.control import ControlClient

_REPORT_S = 1.0


class RouterControl:
    """Talks to the Controller, whoever it is now. `ended` is set once the Router may exit."""

    def __init__(
        self, run_dir: Path, router: int, epoch: int, listen: Callable[[list[socket.socket]], None]
    ) -> None:
        self.router = router
        self.epoch = epoch
        self.server = ServerState(time.monotonic)
        self.tls = RouterTls()
        self.shell: RouterShell | None = None
        self.state = "starting"
        self.ended = asyncio.Event()
        self._run_dir = run_dir
        self._endpoint = run_dir / f"router-{router}-{epoch}.sock"
        self._listen = listen
        self._loop = asyncio.get_running_loop()
        self._client = ControlClient(run_dir, self._hello)
        self._watched_fd = -1
        self._welcome = Welcome(PROTOCOL, b"")  # its defaults hold until the first one
        self._listeners: list[socket.socket] = []
        self._is_listening = False
        self._report_at = 0.0
        self._drain_until: float | None = None

    def tick(self, now: float) -> None:
        """Reconnect, report, and look whether it is time to end."""
        self._watch()
        if self.shell is not None:
            self.shell.on_tick(now)
        self.server.sweep(now)
        if now >= self._report_at:
            self.report()
        self._check_grace(now)
        self._check_drained(now)

    def listening(self) -> None:
        self.state = "ready"
        self.report()

    def drain(self, timeout_s: float) -> None:
        """Accept nothing new, finish what is open, end; after `timeout_s` end anyway."""
        if self._drain_until is None:
            self._drain_until = time.monotonic() + timeout_s
            self.state = "draining"
            self.server.begin_drain()
            if self.shell is not None:
                self.shell.may_answer = False
            self.report()

    @property
    def is_draining(self) -> bool:
        return self._drain_until is not None

    def report(self) -> None:
        self._report_at = time.monotonic() + _REPORT_S
        if self.shell is None:
            return
        scheduler, fleet = self.shell.core.scheduler, self.shell.core.fleet
        models = self.shell.core.loads(time.monotonic())
        workers = [(w, scheduler.in_flight(w)) for w in fleet.workers]
        gauges = self.shell.metrics.gauges
        gauges.connections = len(self.server.connections)
        gauges.bad_requests = self.server.bad_requests
        self.shell.read_gauges()
        metrics = self.shell.metrics.dump()
        usage = self.shell.usage.take()
        report = RouterReport(models, workers, gauges.connections, self.state, metrics, usage)
        if not self._client.send(report):
            self.shell.usage.put_back(usage)

    # --- messages ---

    def _on_readable(self) -> None:
        for message, fds in self._client.receive():
            self._on_message(message, fds)
        self._watch()
        if self.shell is not None:
            self.shell.wake()

    def _on_message(self, message: object, fds: list[int]) -> None:
        if isinstance(message, Welcome):
            self._on_welcome(message, fds)
            return
        if isinstance(message, Drain):
            self.drain(message.timeout_s)
        shell = self.shell
        if shell is None:
            return
        if isinstance(message, Attach):
            shell.attach(message, fds)
        elif isinstance(message, Detach):
            shell.detach(message.worker, message.incarnation)
        elif isinstance(message, PeerMetrics):
            shell.peers = message.dumps
        elif isinstance(message, Keys):
            self._on_keys(message, fds[0])
        elif isinstance(message, ReadCertificate):
            self.tls.read_again(message.cert, message.key)
        elif isinstance(message, Registry):
            shell.core.on_registry(message)
        elif isinstance(message, Loading):
            shell.core.fleet.on_loading(message, time.monotonic())

    def _on_welcome(self, welcome: Welcome, fds: list[int]) -> None:
        self._welcome = welcome
        if self.shell is not None:  # a new Controller adopts: nothing changes here
            for fd in fds:
                os.close(fd)
            return
        config = msgspec.msgpack.decode(welcome.spec, type=ServerConfig)
        logging.getLogger().setLevel(config.log.level.upper())
        log = access_log(self._run_dir, config.log)
        self.shell = RouterShell(self._endpoint, self.epoch, config, log, self.router)
        self.shell.on_worker_lost = self._on_worker_lost
        self.shell.on_load_wanted = self._on_load_wanted
        self._listeners = [socket.socket(fileno=fd) for fd in fds]

    def _on_keys(self, keys: Keys, table_fd: int) -> None:
        """Who may ask. Nobody is listened to before that is known."""
        assert self.shell is not None
        try:
            self.shell.keys.update(keys, LimitTable.map(table_fd))
        finally:
            os.close(table_fd)
        if not self._is_listening:
            self._is_listening = True
            self._listen(self._listeners)

    def _on_worker_lost(self, worker: int, incarnation: int, reason: str) -> None:
        self._client.send(WorkerLost(worker, incarnation, reason))

    def _on_load_wanted(self, model: int) -> None:
        self._client.send(LoadWanted(model))

    def _hello(self) -> tuple[Hello, list[int]]:
        attached = self.shell.attached if self.shell is not None else []
        hello = Hello(
            protocol=PROTOCOL,
            build=__version__,
            role="router",
            id=self.router,
            incarnation=self.epoch,
            pid=os.getpid(),
            spec_hash=self._client.spec_hash,
            state=self.state,
            attached=[(w, i, self.router, self.epoch) for w, i in attached],
        )
        return hello, [listener.fileno() for listener in self._listeners]

    # --- time ---

    def _watch(self) -> None:
        """Keep the event loop's reader on the current connection."""
        if self._client.fd < 0:
            if self._watched_fd >= 0:  # now: the next connection may get the same number
                self._loop.remove_reader(self._watched_fd)
                self._watched_fd = -1
            self._client.connect(time.monotonic())
        if self._client.fd != self._watched_fd:
            self._watched_fd = self._client.fd
            self._loop.add_reader(self._watched_fd, self._on_readable)

    def _check_grace(self, now: float) -> None:
        lost, welcome = self._client.lost_since, self._welcome
        if lost is not None and now - lost > welcome.grace_s:
            self.drain(welcome.drain_s)

    def _check_drained(self, now: float) -> None:
        if self._drain_until is None:
            return
        is_idle = self.shell is None or self.shell.is_idle
        if (is_idle and not self.server.connections) or now > self._drain_until:
            if self.shell is not None:
                self.shell.end_all()
            self.report()  # what the last requests have used
            self.ended.set()
