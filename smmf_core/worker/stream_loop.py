"""The loop of a self-scheduling engine: one task per sequence, records written once per turn.

asyncio drives it, because such engines are asyncio's. Must not batch: the engine does.
"""

from __future__ import annotations

import asyncio
import time

from smmf_core.engines.base import EngineDead, Output, Sequence, StreamEngine
from smmf_core.native._ring import drain_eventfd
from smmf_core.worker.control import WorkerControl
from smmf_core.worker.core import WorkerCore
from smmf_core.worker.links import Links
from smmf_core.worker.probe import WARM_UP, WARMING_UP, Prober

_IDLE_S = 0.1  # control, new Routers and dead ones are looked at this often
_WARM_S = 0.005  # the first answer is looked for this often


class StreamLoop:
    """Serves until the Controller (or its absence) says to end and all requests have ended."""

    def __init__(
        self, engine: StreamEngine, core: WorkerCore, links: Links, control: WorkerControl
    ) -> None:
        self._engine = engine
        self._core = core
        self._links = links
        self._control = control
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._watched: set[int] = set()
        self._flush_due = False
        self._dead: EngineDead | None = None

    async def warm_up(self, prober: Prober) -> None:
        """A request of the Worker's own. Returns early when the Worker is to end. Raises
        WarmUpFailed, EngineDead."""
        self._control.set_phase(WARMING_UP)
        prober.begin(WARM_UP, time.monotonic())
        while self._control.drain_until is None:
            now = time.monotonic()
            self._control.turn(now)
            self._turn()
            if self._dead is not None:
                raise self._dead
            if prober.check_warm_up(now):
                return
            await asyncio.sleep(_WARM_S)

    async def run(self) -> None:
        """Raises EngineDead, after all that the engine had has been told."""
        while True:
            now = time.monotonic()
            attached = self._links.attached
            self._control.turn(now)
            if attached != self._links.attached:
                self._unwatch()  # a descriptor's number may be another Router's now
            self._watch()
            self._control.apply_adapters(self._engine)
            self._core.announce(now)
            self._turn()
            if self._dead is not None:
                self._core.fail_joined(self._dead, self._dead.untouched)
                self._links.flush(self._control.steps)
                self._control.after_step(now)
                raise self._dead
            until = self._control.drain_until
            has_drained = not len(self._core) and self._links.is_idle
            if until is not None and (has_drained or now > until):
                break
            await asyncio.sleep(_IDLE_S)
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _unwatch(self) -> None:
        for fd in self._watched:
            asyncio.get_running_loop().remove_reader(fd)
        self._watched = set()

    def _watch(self) -> None:
        """Keep the event loop's readers equal to the Routers' descriptors."""
        loop = asyncio.get_running_loop()
        wanted = {*self._links.request_fds, *self._links.pidfds, *self._links.space_fds}
        for fd in self._watched - wanted:
            loop.remove_reader(fd)
        for fd in wanted - self._watched:
            loop.add_reader(fd, self._on_readable, fd)
        self._watched = wanted

    def _on_readable(self, fd: int) -> None:
        if fd in self._links.space_fds:
            drain_eventfd(fd)
        if fd in self._links.pidfds:
            asyncio.get_running_loop().remove_reader(fd)
            self._watched.discard(fd)
            self._links.remove_dead()
            self._watch()
        self._turn()

    def _turn(self) -> None:
        """Take everything in, start what was admitted, cancel what left, write out once."""
        self._flush_due = False
        now = time.monotonic()
        self._links.receive(now)
        for sequence in self._core.admit(now):
            self._tasks[sequence.id] = asyncio.create_task(self._generate(sequence))
        for sequence in self._core.left:
            task = self._tasks.pop(sequence.id, None)
            if task is not None and task is not asyncio.current_task():
                task.cancel()
        self._core.left = []
        self._links.flush(self._control.steps)
        self._control.after_step(now)

    async def _generate(self, sequence: Sequence) -> None:
        try:
            async for output in self._engine.generate(sequence):
                self._control.steps += 1
                self._deliver(output)
            error: Exception = RuntimeError("it stopped without an end")  # unless it has ended
        except EngineDead as raised:
            error = self._dead = raised
        except Exception as raised:  # this sequence is lost, the others go on
            error = raised
        self._deliver(Output(sequence, 0, error=error))

    def _deliver(self, output: Output) -> None:
        self._core.on_outputs([output])
        if not self._flush_due:
            self._flush_due = True
            asyncio.get_running_loop().call_soon(self._turn)
