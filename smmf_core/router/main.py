"""The Router process: HTTP on one side, Workers on the other, one event loop between.

Nothing blocks. What waits, waits in the Scheduler (requests) or in the StreamTable (bytes of slow
clients, bounded). One loop turn takes everything in, decides, and writes out once. The Router owns
open answers and no model; must not tokenise or decide placement itself.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path

import msgspec
import uvloop

from smmf_core import __version__
from smmf_core.config import ServerConfig
from smmf_core.errors import ApiError
from smmf_core.http.protocol import HttpProtocol, Limits, ServerState
from smmf_core.http.routes import Routes
from smmf_core.messages import (
    ADMIT,
    FAIL,
    FINISH,
    OVERFLOW,
    PROTOCOL,
    RESULT,
    Attach,
    Detach,
    Drain,
    Failure,
    Hello,
    PeerMetrics,
    Ready,
    Registry,
    Result,
    RouterReport,
    ToWorker,
    Usage,
    Welcome,
    WorkerLost,
)
from smmf_core.metrics import Metrics
from smmf_core.native._frames import StreamTable
from smmf_core.router.core import RouterCore
from smmf_core.router.response import Answer
from smmf_core.router.rings import Event, Rings
from smmf_core.wire.control import ControlClient
from smmf_core.wire.requests import RouterSocket, worker_identity

_TICK_S = 0.25  # time-outs, reconnects; coarse on purpose, exact ones are the Scheduler's
_REPORT_S = 1.0
_PENDING_BYTES = 1 << 20  # of one slow client: minutes of text; beyond it the client is cut off
_BACKLOG = 4096  # connections the kernel keeps while a turn runs or the Router restarts
_GC_THRESHOLDS = (50_000, 50, 100)  # requests make no cycles: look for them seldom

_decode_result = msgspec.msgpack.Decoder(Result).decode
_decode_failure = msgspec.msgpack.Decoder(Failure).decode


class RouterShell:
    """Connects the core to its sockets; implements core.Effects and routes.Gateway."""

    def __init__(self, run_dir: Path, router: int, epoch: int) -> None:
        self.router = router
        self.epoch = epoch
        self.metrics = Metrics()
        self.peers: list[bytes] = []
        self.table = StreamTable(_PENDING_BYTES)
        self.config: ServerConfig | None = None
        self.server: ServerState | None = None
        self._loop = asyncio.get_running_loop()
        self._rings = Rings(self._loop, self.table, self.wake, self._on_worker_died)
        endpoint = run_dir / f"router-{router}-{epoch}.sock"
        self._requests = RouterSocket(f"ipc://{endpoint}")
        self._loop.add_reader(self._requests.fd, self._on_requests)
        self._control = ControlClient(run_dir, self._hello)
        self._watched_fd = -1
        self._welcome: Welcome | None = None
        self._listener: socket.socket | None = None
        self._http: asyncio.Server | None = None
        self._turn_due = False
        self._finishing: list[Answer] = []
        self._answers: dict[int, Answer] = {}
        self._report_at = 0.0
        self._drain_until: float | None = None
        self._state = "starting"
        self._core: RouterCore | None = None
        self.ended = asyncio.Event()

    @property
    def core(self) -> RouterCore:
        assert self._core is not None, "requests come only after the Welcome"
        return self._core

    # --- Effects ---

    def send(self, worker: int, messages: list[ToWorker]) -> bool:
        incarnation = self._rings.incarnation(worker)
        if incarnation is None:
            return False
        return self._requests.send(worker_identity(worker, incarnation), messages)

    def worker_lost(self, worker: int, reason: str) -> None:
        incarnation = self._rings.incarnation(worker) or 0
        self._control.send(WorkerLost(worker, incarnation, reason))

    # --- Gateway ---

    def opened(self, answer: Answer) -> None:
        self._answers[answer.key] = answer
        self.wake()

    def disconnected(self, answer: Answer) -> None:
        """The client went away. After the last token it is a success: there is nothing to cancel."""
        if answer.done:
            return
        self._answers.pop(answer.key, None)
        if self.core.cancel(answer.key):
            answer.gone("disconnect")
            self.wake()
        else:
            answer.done = True
            self.table.close(answer.key)

    def writable(self, answer: Answer) -> None:
        self.table.unblock(answer.key)
        self.wake()

    def wake(self) -> None:
        """Have a turn at the end of this loop iteration."""
        if not self._turn_due:
            self._turn_due = True
            self._loop.call_soon(self._turn)

    @property
    def is_ready(self) -> bool:
        return self._state == "ready" and self.core.fleet.is_ready

    @property
    def now(self) -> float:
        return time.monotonic()

    @property
    def wall_s(self) -> int:
        return int(time.time())

    # --- one turn ---

    def _turn(self) -> None:
        """Take everything in, decide, write out once per connection."""
        self._turn_due = False
        if self._core is None:  # before the Welcome there is nothing to do
            return
        now = time.monotonic()
        self._dispatch(self._rings.drain(now), now)
        self.core.turn(now)
        self._flush()
        if not self._rings.arm():
            self.wake()

    def _dispatch(self, events: list[Event], now: float) -> None:
        core = self.core
        for key, kind, choice, count, payload in events:
            if kind == ADMIT:
                core.on_admit(key, count)
            elif kind == RESULT:
                core.on_result(key, _decode_result(payload))
            elif kind == FINISH:
                core.on_finish(key, _usage(payload), now)
            elif kind == FAIL:
                core.on_fail(key, _decode_failure(payload))
            elif kind == OVERFLOW:
                self._cut_off(key)
            elif (answer := self._answers.get(key)) is not None:
                answer.on_event(kind, choice, count, payload)

    def _flush(self) -> None:
        for key, rest in self.table.flush():
            answer = self._answers.get(key)
            if answer is not None:
                answer.unsent(rest)
        if self._finishing:
            self._finishing = [answer for answer in self._finishing if not self._complete(answer)]

    def _complete(self, answer: Answer) -> bool:
        if not answer.done:
            if not self.table.ended(answer.key):
                return False
            answer.complete()
        self._answers.pop(answer.key, None)
        return True

    def on_end(self, answer: Answer) -> None:
        """A terminal event came: the answer is done, or done once its bytes are out."""
        if answer.ending:
            self._finishing.append(answer)
            self.wake()
        elif answer.request is not None:
            self._answers.pop(answer.key, None)

    def _cut_off(self, key: int) -> None:
        """A client that reads too slowly: its bytes are bounded, other clients are not affected."""
        answer = self._answers.pop(key, None)
        if answer is not None and not answer.done:
            self.core.cancel(key)
            answer.gone("slow_client")
            answer.unsent(b"")

    # --- Workers ---

    def _on_requests(self) -> None:
        for _, messages in self._requests.receive():
            for ready in messages:
                self._on_ready(ready)
        self.wake()

    def _on_ready(self, ready: Ready) -> None:
        if ready.epoch == self.epoch:
            self.core.fleet.ready(ready.worker, ready.incarnation)

    def _on_worker_died(self, worker: int) -> None:
        """What it had published is valid; what it had not finished goes elsewhere."""
        now = time.monotonic()
        self._dispatch(self._rings.drain_one(worker, now), now)
        self._rings.remove(worker)
        self.core.on_worker_down(worker, now)
        self.wake()

    # --- Controller ---

    def _on_control(self) -> None:
        for message, fds in self._control.receive():
            self._on_message(message, fds)
        self._watch_control()
        self.wake()

    def _on_message(self, message: object, fds: list[int]) -> None:
        if isinstance(message, Welcome):
            self._on_welcome(message, fds)
        elif isinstance(message, Registry):
            for key in self.core.fleet.update(message):
                self.core.abort(key, ApiError("model_unavailable", "The model was removed."))
        elif isinstance(message, Attach):
            self._on_attach(message, fds)
        elif isinstance(message, Detach):
            if self._rings.incarnation(message.worker) == message.incarnation:
                self._on_worker_died(message.worker)
        elif isinstance(message, PeerMetrics):
            self.peers = message.dumps
        elif isinstance(message, Drain):
            self.drain(message.timeout_s)

    def _on_welcome(self, welcome: Welcome, fds: list[int]) -> None:
        self._welcome = welcome
        if self._listener is not None:  # a new Controller adopts: nothing changes here
            for fd in fds:
                os.close(fd)
            return
        self.config = msgspec.msgpack.decode(welcome.spec, type=ServerConfig)
        logging.getLogger().setLevel(self.config.log.level.upper())
        self._core = RouterCore(self, self.config.timeouts)
        self._listener = socket.socket(fileno=fds[0])
        self._loop.create_task(self._listen())

    def _on_attach(self, attach: Attach, fds: list[int]) -> None:
        known = self._rings.incarnation(attach.worker)
        if known is not None:  # its successor is here before its death was seen
            self._on_worker_died(attach.worker)
        self._rings.attach(attach.worker, attach.incarnation, fds)
        self.core.fleet.attached(attach.worker, attach.incarnation, attach.slots)

    async def _listen(self) -> None:
        assert self.config is not None and self._listener is not None
        limits = Limits(body_bytes=int(self.config.server.max_body_mb * (1 << 20)))
        self.server = ServerState(time.monotonic)
        routes = Routes(self, self.config)
        self._http = await self._loop.create_server(
            lambda: HttpProtocol(routes, limits, self.server), sock=self._listener, backlog=_BACKLOG
        )
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)
        self._state = "ready"
        self._report()

    def _hello(self) -> tuple[Hello, list[int]]:
        rings = [(w, i, self.router, self.epoch) for w, i in self._rings.attached]
        hello = Hello(
            protocol=PROTOCOL,
            build=__version__,
            role="router",
            id=self.router,
            incarnation=self.epoch,
            pid=os.getpid(),
            spec_hash=self._control.spec_hash,
            state=self._state,
            attached=rings,
        )
        return hello, [self._listener.fileno()] if self._listener is not None else []

    def _report(self) -> None:
        self._report_at = time.monotonic() + _REPORT_S
        if self._core is None:
            return
        scheduler, fleet = self.core.scheduler, self.core.fleet
        models = [
            (index, scheduler.waiting(index)[0], scheduler.running(index)) for index in fleet.used
        ]
        workers = [(w, scheduler.in_flight(w)) for w, r in fleet.workers.items() if r.is_up]
        connections = len(self.server.connections) if self.server is not None else 0
        metrics = self.metrics.dump()
        self._control.send(RouterReport(models, workers, connections, self._state, metrics))

    def gathered_metrics(self) -> Metrics:
        """All Routers' counters, and this one's gauges."""
        self._read_gauges()
        total = Metrics()
        total.add(self.metrics.dump())
        for dumped in self.peers:
            total.add(dumped)
        return total

    def _read_gauges(self) -> None:
        scheduler, fleet, gauges = self.core.scheduler, self.core.fleet, self.metrics.gauges
        used = [fleet.models[index] for index in fleet.used if index in fleet.models]
        gauges.running = {m.name: scheduler.running(m.index) for m in used}
        gauges.waiting = {m.name: scheduler.waiting(m.index)[0] for m in used}
        gauges.instance_up = {
            r.instance: (fleet.models[r.model].name, int(r.is_up))
            for r in fleet.workers.values()
            if r.model in fleet.models
        }
        gauges.late_records = self.table.late_records
        if self.server is not None:
            gauges.connections = len(self.server.connections)
            gauges.bad_requests = self.server.bad_requests

    # --- time ---

    async def run(self) -> None:
        """Until drained. Time-outs and the control connection are looked at four times a second."""
        while not self.ended.is_set():
            self._tick(time.monotonic())
            try:
                await asyncio.wait_for(self.ended.wait(), _TICK_S)
            except TimeoutError:
                continue

    def _tick(self, now: float) -> None:
        self._watch_control()
        if self._core is not None:
            self._check_timeouts(now)
        if self.server is not None:
            self.server.sweep(now)
        if now >= self._report_at:
            self._report()
        self._check_grace(now)
        self._check_drained(now)

    def _watch_control(self) -> None:
        """Keep the event loop's reader on the current control connection."""
        if self._control.fd < 0:
            self._control.connect(time.monotonic())
        if self._control.fd == self._watched_fd:
            return
        if self._watched_fd >= 0:
            self._loop.remove_reader(self._watched_fd)
        self._watched_fd = self._control.fd
        if self._watched_fd >= 0:
            self._loop.add_reader(self._watched_fd, self._on_control)

    def _check_timeouts(self, now: float) -> None:
        assert self.config is not None
        timeouts = self.config.timeouts
        for key in self.table.stale(now, timeouts.first_token_s, timeouts.inference_s):
            self.core.on_stale(key)
        self.wake()  # also ends what waited too long

    def _check_grace(self, now: float) -> None:
        lost, welcome = self._control.lost_since, self._welcome
        if lost is not None and welcome is not None and now - lost > welcome.grace_s:
            self.drain(welcome.drain_s)

    def drain(self, timeout_s: float) -> None:
        """Accept nothing new, finish what is open, end; after `timeout_s` end anyway."""
        if self._drain_until is None:
            self._drain_until = time.monotonic() + timeout_s
            self._state = "draining"
            if self._http is not None:
                self._http.close()
            if self.server is not None:
                self.server.begin_drain()
            self._report()

    def _check_drained(self, now: float) -> None:
        if self._drain_until is None:
            return
        is_idle = self.server is None or not self.server.connections
        if (is_idle and not self._answers) or now > self._drain_until:
            self.ended.set()


def _usage(payload: bytes) -> Usage:
    parts = memoryview(payload).cast("I")
    return Usage(parts[0], parts[1], parts[2], parts[3])


def _raise_descriptor_limit() -> None:
    """As many connections as the system allows this process."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def serve(run_dir: Path, router: int, epoch: int) -> None:
    shell = RouterShell(run_dir, router, epoch)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, shell.drain, 30.0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the Controller's
    await shell.run()


def main() -> int:
    parser = argparse.ArgumentParser(prog="smmf-router")
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--id", type=int, required=True)
    parser.add_argument("--epoch", type=int, required=True)
    args = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    _raise_descriptor_limit()
    uvloop.run(serve(args.run_dir, args.id, args.epoch))
    return 0


if __name__ == "__main__":
    sys.exit(main())
