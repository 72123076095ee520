"""All of a client's connections: sends what was asked, fails over, and hands out what comes.

One `turn` at a time, never blocking: a thread or an event loop has the turns. Owns the links and
what waits for one; must not know who has the turns.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable

import zmq

from smmf_core.client.errors import Cancelled, ClientError, ConnectionLost, Protocol
from smmf_core.client.exchange import Exchange
from smmf_core.client.find import Address
from smmf_core.client.link import Link
from smmf_core.lane_messages import Grant, Stop, ToLane

_LOOK_AGAIN_S = 0.05  # for a server that is not there
_MAX_REFUSALS = 3  # in a row: not a Router that has just ended
_CONNECT_S = 2.0  # a Router that has accepted and says nothing


class Driver:
    """`ask`, `stop` and `granted` may be called from anywhere; all else by who has the turns."""

    def __init__(self, address: Address) -> None:
        self.links: list[Link] = []
        self.on_close: Callable[[Link], None] = lambda _: None  # its descriptors go with it
        self._address = address
        self._refusals = 0  # in a row
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._asked: deque[Exchange] = deque()
        self._notes: deque[tuple[Exchange, int]] = deque()  # bytes read; -1: stop
        self._waiting: dict[int, Exchange] = {}  # for a link
        self._ids = itertools.count(1)
        self._look_at = 0.0
        self._connect_at = self._connect_until = 0.0  # not sooner; not longer

    def next_id(self) -> int:
        return next(self._ids)

    def ask(self, exchange: Exchange) -> None:
        self._asked.append(exchange)

    def stop(self, exchange: Exchange) -> None:
        self._notes.append((exchange, -1))

    def granted(self, exchange: Exchange, read: int) -> None:
        self._notes.append((exchange, read))

    @property
    def has_notes(self) -> bool:
        return bool(self._notes)

    def turn(self, now: float) -> float | None:
        """Take in, send out. When to call again at the latest; None: no sooner than needed."""
        self._receive(now)
        while self._asked:
            self._wait(self._asked.popleft(), now)
        outbox: dict[Link, list[ToLane]] = {}
        self._take_notes(outbox)
        if self._waiting:
            self._place(outbox, now)
        for link, messages in outbox.items():
            link.send(messages)
        if outbox:  # a send may take the wake-up of a frame that has come
            self._receive(now)
        return max(self._look_at, now) if self._waiting else None

    def close(self) -> None:
        for link in list(self.links):
            self._drop(link)
        for exchange in [*self._waiting.values(), *self._asked]:
            self._fail(exchange, Cancelled("the client was closed"))
        self._waiting.clear()
        self._asked.clear()
        self._context.term()

    # --- inside ---

    def _wait(self, exchange: Exchange, now: float) -> None:
        exchange.give_up_at = now + exchange.connect_s
        self._waiting[exchange.ask.id] = exchange

    def _receive(self, now: float) -> None:
        for link in list(self.links):
            link.receive()
            for exchange in link.moved:
                self._wait(exchange, now)
            link.moved.clear()
            if link.is_down:
                self._refusals = self._refusals + 1 if link.was_refused else 0
            if link.is_down or (link.is_leaving and not link.open):
                self._drop(link)

    def _take_notes(self, outbox: dict[Link, list[ToLane]]) -> None:
        while self._notes:
            exchange, read = self._notes.popleft()
            key = exchange.ask.id
            if read < 0:
                self._waiting.pop(key, None)
            link = next((link for link in self.links if key in link.open), None)
            if link is None:
                continue
            if read < 0:
                del link.open[key]
            note = Stop(key) if read < 0 else Grant(key, read)
            outbox.setdefault(link, []).append(note)

    def _place(self, outbox: dict[Link, list[ToLane]], now: float) -> None:
        link = self._current(now)
        if link is not None and link.is_up:
            asks = outbox.setdefault(link, [])
            for key, exchange in self._waiting.items():
                link.open[key] = exchange
                asks.append(exchange.ask)
            self._waiting.clear()
            return
        self._look_at = now + _LOOK_AGAIN_S
        is_hopeless = self._refusals >= _MAX_REFUSALS
        for key, exchange in list(self._waiting.items()):
            if is_hopeless or now >= exchange.give_up_at:
                del self._waiting[key]
                self._fail(exchange, self._nobody())
        if is_hopeless:
            self._refusals = 0

    def _nobody(self) -> ClientError:
        if self._refusals:
            return Protocol(
                f"what listens at {self._address} is no smmf server with the key that was given"
            )
        return ConnectionLost(f"no server answers at {self._address}")

    def _current(self, now: float) -> Link | None:
        """The link for new requests, perhaps not up yet."""
        link = next((link for link in self.links if not link.is_leaving), None)
        if link is not None and (link.is_up or now < self._connect_until):
            return link
        if link is not None:
            self._drop(link)
        if now < self._connect_at:
            return None
        self._connect_at = now + _LOOK_AGAIN_S
        endpoint = self._address.endpoint()
        if endpoint is None:
            return None
        self._connect_until = now + _CONNECT_S
        self.links.append(Link(self._context, endpoint))
        return self.links[-1]

    def _drop(self, link: Link) -> None:
        self.on_close(link)
        link.close()
        self.links.remove(link)

    def _fail(self, exchange: Exchange, error: ClientError) -> None:
        exchange.is_over = True
        exchange.put(error)
