"""Connects the Router's core to its sockets: one turn takes everything in and writes out once.

Nothing blocks. Owns the open answers, the StreamTable and the rings' readers; what waits, waits in
the Scheduler (requests) or in the StreamTable (bytes of slow clients, bounded). Must not decide
placement or know the Controller.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from smmf_core.config import ServerConfig
from smmf_core.control_messages import Attach
from smmf_core.errors import ApiError
from smmf_core.http.access_log import AccessLog, AccessRecord
from smmf_core.messages import (
    ADMIT,
    FAIL,
    FINISH,
    OVERFLOW,
    RESULT,
    Failure,
    Ready,
    ToWorker,
    Usage,
    Whole,
)
from smmf_core.metrics import Metrics
from smmf_core.native._frames import StreamTable
from smmf_core.router.call import Call, End
from smmf_core.router.core import Open, RouterCore
from smmf_core.router.keys import KeyRing
from smmf_core.router.response import Answer
from smmf_core.router.rings import Event, Rings
from smmf_core.router.usage import Ledger
from smmf_core.wire.requests import RouterSocket, worker_identity

_RENDERERS = 2  # threads; they let go of the GIL
_PENDING_BYTES = 1 << 20  # of one slow client: minutes of text; beyond it the client is cut off
_UNREAD_S = 60.0  # how long the rest of an ended stream waits for a client that reads nothing
_USAGE = struct.Struct("4I")  # csrc/FORMAT.md
_KEEP_ALIVE_S = 15.0  # below what proxies (60 s) and Node's fetch (300 s) wait for the next byte
_log = logging.getLogger("smmf.router")

_decode_result = msgspec.msgpack.Decoder(Whole).decode
_decode_failure = msgspec.msgpack.Decoder(Failure).decode


class RouterShell:
    """Implements core.Effects for the core and routes.Gateway for the HTTP side."""

    def __init__(
        self,
        endpoint: Path,
        epoch: int,
        config: ServerConfig,
        access: AccessLog | None = None,
        router: int = 0,
    ) -> None:
        self.config = config
        self.access = access
        self.metrics = Metrics()
        self.keys = KeyRing(router)
        self.usage = Ledger()
        self.peers: list[bytes] = []  # the other Routers' metrics
        self.table = StreamTable(_PENDING_BYTES)
        self.core = RouterCore(self, config.timeouts, config.limits.max_concurrency)
        self.on_worker_lost: Callable[[int, int, str], None] = lambda *_: None
        self.on_load_wanted: Callable[[int], None] = lambda _: None
        self.may_answer = True  # False while draining
        self._epoch = epoch
        self._loop = asyncio.get_running_loop()
        self._rings = Rings(self._loop, self.table, self.wake, self.on_worker_died)
        self._requests = RouterSocket(f"ipc://{endpoint}")
        self._loop.add_reader(self._requests.fd, self._on_requests)
        self._renderers = ThreadPoolExecutor(_RENDERERS, "render")
        self._turn_due = False
        self._has_sent = False
        self._finishing: dict[Answer, float] = {}  # since when their client has read nothing
        self._answers: dict[int, Answer] = {}
        self._rendering: set[asyncio.Task[None]] = set()

    # --- Effects ---

    def send(self, worker: int, messages: list[ToWorker]) -> bool:
        incarnation = self._rings.incarnation(worker)
        if incarnation is None:
            return False
        self._has_sent = True
        return self._requests.send(worker_identity(worker, incarnation), messages)

    def worker_lost(self, worker: int, reason: str) -> None:
        self.on_worker_lost(worker, self._rings.incarnation(worker) or 0, reason)

    def load_wanted(self, model: int) -> None:
        self.on_load_wanted(model)

    # --- Gateway ---

    def opened(self, answer: Answer) -> None:
        self._answers[answer.key] = answer
        self.wake()

    def disconnected(self, answer: Answer) -> None:
        """The client went away; after the last token that is a success."""
        if answer.done:
            return
        self._answers.pop(answer.key, None)
        if self.core.cancel(answer.key):
            answer.gone("disconnect")
            self.wake()
        else:
            answer.done = True
            self.table.close(answer.key)

    def end_all(self) -> None:
        """The Router ends: what is still open has been used as far as it came."""
        for answer in list(self._answers.values()):
            self.disconnected(answer)

    def writable(self, answer: Answer) -> None:
        self.table.unblock(answer.key)
        if answer in self._finishing:
            self._finishing[answer] = self.now
        self.wake()

    def wake(self) -> None:
        """Have a turn at the end of this loop iteration."""
        if not self._turn_due:
            self._turn_due = True
            self._loop.call_soon(self._turn)

    @property
    def is_ready(self) -> bool:
        return self.may_answer and self.core.fleet.is_ready

    @property
    def is_idle(self) -> bool:
        return not self._answers

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
        now = time.monotonic()
        events, broken = self._rings.drain(now)
        self._dispatch(events, now)
        for worker in broken:
            self.worker_lost(worker, "its token ring is malformed")
            self.on_worker_died(worker)
        self.core.turn(now)
        if self._has_sent:  # a send may take the wake-up of a frame that has come
            self._has_sent = False
            self._on_requests()
        self._flush()
        if not self._rings.arm():
            self.wake()

    def _dispatch(self, events: list[Event], now: float) -> None:
        core = self.core
        for key, kind, choice, count, payload in events:
            try:
                if kind == ADMIT:
                    core.on_admit(key, count)
                elif kind == RESULT:
                    core.on_result(key, _decode_result(payload))
                elif kind == FINISH:
                    core.on_finish(key, Usage(*_USAGE.unpack(payload)), now)
                elif kind == FAIL:
                    core.on_fail(key, _decode_failure(payload))
                elif kind == OVERFLOW:
                    self._cut_off(key)
                elif (answer := self._answers.get(key)) is not None:
                    answer.on_event(kind, choice, count, payload)
            except Exception:
                _log.exception("an answer of a worker cannot be used")
                self._fail(key)

    def _fail(self, key: int) -> None:
        """What a Worker sent cannot be used: that costs its request, not the turn."""
        self.core.cancel(key)
        answer = self._answers.get(key)
        if answer is not None and not (answer.done or answer.ending):
            answer.failed(ApiError("internal_error", "The worker's answer cannot be used."))

    def _flush(self) -> None:
        for key, rest in self.table.flush():
            answer = self._answers.get(key)
            if answer is not None:
                answer.unsent(rest)
        for answer in [answer for answer in self._finishing if self._complete(answer)]:
            del self._finishing[answer]

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
            self._finishing[answer] = self.now
            self.wake()
        elif answer.request is not None:
            self._answers.pop(answer.key, None)

    def render_aside(self, answer: Answer, render: Callable[[], bytes]) -> None:
        """A long answer's body is made in a thread: other clients do not wait for it."""

        async def run() -> None:
            try:
                body = await self._loop.run_in_executor(self._renderers, render)
            except Exception:  # memory, for one
                _log.exception("an answer cannot be rendered")
                answer.unsent(b"")
                return
            if not answer.done:  # its client may have gone
                answer.rendered(body)

        self._rendering.add(task := self._loop.create_task(run()))
        task.add_done_callback(self._rendering.discard)

    def record(self, call: Call, request: Open | None, end: End) -> None:
        """A request is over: what it has used is counted, and the access log gets a line."""
        now_s = time.time()
        self.usage.ended(call, end, int(now_s))
        if self.access is None:
            return
        usage, received_at, queued_s, first_s = end.usage, call.received_at, None, None
        if request is not None and request.placed_at:
            queued_s = request.placed_at - request.accepted_at
        if end.first_token_at:
            first_s = end.first_token_at - received_at
        record = AccessRecord(
            now_s,
            call.request_id,
            call.key.id if call.key is not None else "",
            call.model,
            request.instance if request is not None else "",
            call.route,
            end.status,
            queued_s,
            first_s,
            end.at - received_at,
            usage.prompt,
            usage.completion,
            usage.cached,
            end.finish,
            call.stream,
        )
        self.access.add(record)

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
        if ready.epoch == self._epoch:
            self.core.fleet.ready(ready.worker, ready.incarnation)

    def on_worker_died(self, worker: int) -> None:
        """What it had published is valid; what it had not finished goes elsewhere."""
        now = time.monotonic()
        incarnation = self._rings.incarnation(worker)
        if incarnation is None:
            return
        self._dispatch(self._rings.drain_one(worker, now), now)
        self._rings.remove(worker)
        self.core.on_worker_down(worker, incarnation, now)
        self.wake()

    @property
    def attached(self) -> list[tuple[int, int]]:
        return self._rings.attached

    def attach(self, attach: Attach, fds: list[int]) -> None:
        """A new Worker's ring. Takes over the descriptors."""
        self.on_worker_died(attach.worker)  # its successor is here before its death was seen
        self._rings.attach(attach.worker, attach.incarnation, fds)
        self.core.fleet.attached(attach.worker, attach.incarnation, attach.slots)

    def detach(self, worker: int, incarnation: int) -> None:
        if self._rings.incarnation(worker) == incarnation:
            self.on_worker_died(worker)

    # --- time ---

    def on_tick(self, now: float) -> None:
        """End what has stopped moving, and what waited too long; ask for loads; write the log."""
        self.core.want_loads(now)
        if self.access is not None:
            self.access.flush()
        timeouts = self.config.timeouts
        for key in self.table.stale(now, timeouts.first_token_s, timeouts.inference_s):
            self.core.on_stale(key)
        self._keep_alive(now)
        for answer, since in list(self._finishing.items()):
            if now - since > _UNREAD_S:
                answer.unsent(b"")
        self.wake()

    def _keep_alive(self, now: float) -> None:
        """A sign of life to the clients of streams that have nothing to say yet, though their
        Worker's engine makes steps; none for one that hangs."""
        rings = self._rings
        rings.look(now)
        for key in self.table.quiet(now, _KEEP_ALIVE_S):
            answer, request = self._answers.get(key), self.core.open.get(key)
            if answer is None or request is None or request.worker < 0:
                continue
            if now - rings.moved_at(request.worker) <= _KEEP_ALIVE_S:
                answer.keep_alive()

    # --- metrics ---

    def gathered_metrics(self) -> Metrics:
        """All Routers' counters, and this one's gauges."""
        self.read_gauges()
        total = Metrics()
        total.add(self.metrics.dump())
        for dumped in self.peers:
            total.add(dumped)
        total.gauges.instance_up |= self.metrics.gauges.instance_up  # theirs is a second old
        return total

    def read_gauges(self) -> None:
        scheduler, fleet, gauges = self.core.scheduler, self.core.fleet, self.metrics.gauges
        used = [fleet.models[index] for index in fleet.used if index in fleet.models]
        gauges.running = {m.name: scheduler.running(m.index) for m in used}
        gauges.waiting = {m.name: scheduler.waiting(m.index)[0] for m in used}
        gauges.instance_up = {
            instance: (name, int(is_up)) for instance, name, is_up in fleet.instances()
        }
        gauges.late_records = self.table.late_records
        gauges.ring_full = self._rings.full
