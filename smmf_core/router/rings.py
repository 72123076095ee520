"""The Router's ends of its Workers' token rings: descriptors, readers, wake-ups.

Owns one RingReader, one eventfd and one pidfd per Worker; must not interpret records.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from smmf_core.native._frames import StreamTable
from smmf_core.native._ring import RingReader, drain_eventfd

Event = tuple[int, int, int, int, bytes]
"""(key, kind, choice, count, payload)"""


@dataclass(slots=True)
class Ring:
    worker: int
    incarnation: int
    reader: RingReader
    data_fd: int
    space_fd: int
    pidfd: int
    steps: int = 0  # of its engine, as last looked at
    moved_at: float = -math.inf  # when they were first seen to be more than before


class Rings:
    """All rings of a Router. `wake` is called when a sleeping ring has records, `died` when a
    Worker's pidfd says so."""

    def __init__(
        self, loop: Any, table: StreamTable, wake: Callable[[], None], died: Callable[[int], None]
    ) -> None:
        self._loop = loop
        self._table = table
        self._wake = wake
        self._died = died
        self._rings: dict[int, Ring] = {}
        self._full_before = 0  # of rings that are gone

    @property
    def full(self) -> int:
        """How often a write found no room, over all rings there ever were."""
        return self._full_before + sum(ring.reader.full for ring in self._rings.values())

    @property
    def attached(self) -> list[tuple[int, int]]:
        return [(ring.worker, ring.incarnation) for ring in self._rings.values()]

    def attach(self, worker: int, incarnation: int, fds: list[int]) -> None:
        """Map a ring and watch it. Takes over [memfd, data, space, pidfd]."""
        memfd, data_fd, space_fd, pidfd = fds
        reader = RingReader(memfd, data_fd, space_fd)
        os.close(memfd)  # the mapping keeps the memory
        self._rings[worker] = Ring(worker, incarnation, reader, data_fd, space_fd, pidfd)
        self._loop.add_reader(data_fd, self._on_doorbell, data_fd)
        self._loop.add_reader(pidfd, self._died, worker)
        self._wake()

    def incarnation(self, worker: int) -> int | None:
        ring = self._rings.get(worker)
        return ring.incarnation if ring is not None else None

    def look(self, now: float) -> None:
        """See which Workers' engines have made steps since."""
        for ring in self._rings.values():
            steps = ring.reader.steps
            if steps != ring.steps:
                ring.steps, ring.moved_at = steps, now

    def moved_at(self, worker: int) -> float:
        """When `look` last saw its engine make a step."""
        ring = self._rings.get(worker)
        return ring.moved_at if ring is not None else -math.inf

    def drain(self, now: float) -> tuple[list[Event], list[int]]:
        """Frame everything that is in the rings. Returns what Python must see, and the Workers
        whose ring is malformed: their events first, then they are to be taken for dead."""
        events: list[Event] = []
        broken: list[int] = []
        for ring in self._rings.values():
            try:
                self._table.drain(ring.reader, now, events)
            except RuntimeError:  # a malformed record: nothing after it can be trusted
                broken.append(ring.worker)
        return events, broken

    def drain_one(self, worker: int, now: float) -> list[Event]:
        """The last records of a Worker that died: all complete ones are valid."""
        events: list[Event] = []
        ring = self._rings.get(worker)
        with suppress(RuntimeError):  # a malformed record ends what can be read
            while ring is not None and self._table.drain(ring.reader, now, events):
                continue
        return events

    def arm(self) -> bool:
        """Let the Workers ring; False when records have come meanwhile."""
        return all(ring.reader.arm() for ring in self._rings.values())

    def remove(self, worker: int) -> None:
        ring = self._rings.pop(worker, None)
        if ring is None:
            return
        self._loop.remove_reader(ring.data_fd)
        self._loop.remove_reader(ring.pidfd)
        with suppress(RuntimeError):  # malformed
            self._full_before += ring.reader.full
        ring.reader.close()
        for fd in (ring.data_fd, ring.space_fd, ring.pidfd):
            os.close(fd)

    def _on_doorbell(self, fd: int) -> None:
        drain_eventfd(fd)
        self._wake()
