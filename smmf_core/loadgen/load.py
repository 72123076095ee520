"""Drives many exchanges from one thread: an open loop by arrival times, or a closed loop.

In an open loop a request's time counts from when it was due, not from when a free client sent it,
so that a slow server cannot hide its queue ("coordinated omission"). Owns the sockets.
"""

from __future__ import annotations

import itertools
import select
import socket
import ssl
import time
from collections import deque
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from smmf_core.loadgen.exchange import Exchange, Outcome

_READ_BYTES = 1 << 18
_STALL_S = 60.0  # no byte on any connection for so long: the rest has failed


@dataclass(slots=True)
class Plan:
    """What to send. `arrivals_s`: open loop, one request at each time. Else closed loop:
    `total` requests by `clients`, each sending its next when its last has ended. `requests`, where
    given, are sent instead of `request`, one after another and around again. `trust`: of an
    https:// server's certificate; None: the system's."""

    url: str
    request: bytes
    is_stream: bool
    clients: int = 1
    total: int = 0
    arrivals_s: list[float] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    trust: ssl.SSLContext | None = None


class Load:
    """One run of a Plan; `run` returns every request's Outcome."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        parts = urlsplit(plan.url)
        self._tls: ssl.SSLContext | None = None
        if parts.scheme == "https":
            self._tls = plan.trust or ssl.create_default_context()
        self._address = (parts.hostname or "127.0.0.1", parts.port or (443 if self._tls else 80))
        self._epoll = select.epoll()
        self._busy: dict[int, tuple[socket.socket, Exchange]] = {}
        self._idle: list[socket.socket] = []
        self._outcomes: list[Outcome] = []
        self._began = 0.0
        self._due = deque(sorted(plan.arrivals_s))
        self._to_send = 0 if plan.arrivals_s else plan.total
        self._bodies = itertools.cycle(plan.requests or [plan.request])

    def run(self) -> list[Outcome]:
        self._began = time.monotonic()
        if not self._due:
            for _ in range(min(self._plan.clients, self._plan.total)):
                self._send(self._now())
        last_byte = self._now()
        while self._busy or self._due:
            if self._poll():
                last_byte = self._now()
            elif self._busy and self._now() - last_byte > _STALL_S:
                self._fail_rest("stalled")
            while self._due and self._due[0] <= self._now():
                self._send(self._due.popleft())
        self._close()
        return self._outcomes

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _poll(self) -> bool:
        timeout = 1.0
        if self._due:
            timeout = max(0.0, min(timeout, self._due[0] - self._now()))
        events = self._epoll.poll(timeout)
        for fd, _ in events:
            self._read(fd)
        return bool(events)

    def _send(self, due_s: float) -> None:
        if not self._due and not self._plan.arrivals_s:
            self._to_send -= 1
        exchange = Exchange(Outcome(due_s), self._plan.is_stream)
        try:
            connection = self._idle.pop() if self._idle else self._connect()
            connection.sendall(next(self._bodies))
        except OSError as error:
            self._end(exchange, str(error))
            return
        connection.setblocking(False)
        self._busy[connection.fileno()] = (connection, exchange)

    def _connect(self) -> socket.socket:
        connection = socket.create_connection(self._address, timeout=10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            connection = self._tls.wrap_socket(connection, server_hostname=self._address[0])
        self._epoll.register(connection.fileno(), select.EPOLLIN)
        return connection

    def _read(self, fd: int) -> None:
        found = self._busy.get(fd)
        if found is None:  # the server closed a connection that was idle
            self._forget_idle(fd)
            return
        connection, exchange = found
        try:
            data = _receive(connection)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError as error:
            self._break(fd, str(error))
            return
        if not data:
            self._break(fd, "connection closed")
        elif exchange.feed(data, self._now()):
            del self._busy[fd]
            self._idle.append(connection)
            self._outcomes.append(exchange.close(self._now()))
            self._next()

    def _next(self) -> None:
        if self._to_send > 0:
            self._send(self._now())

    def _break(self, fd: int, why: str) -> None:
        connection, exchange = self._busy.pop(fd)
        connection.close()
        self._end(exchange, why)
        self._next()

    def _end(self, exchange: Exchange, why: str) -> None:
        outcome = exchange.close(self._now())
        outcome.error = why
        self._outcomes.append(outcome)

    def _fail_rest(self, why: str) -> None:
        self._to_send = 0
        for fd in list(self._busy):
            self._break(fd, why)
        self._due.clear()

    def _forget_idle(self, fd: int) -> None:
        for connection in [c for c in self._idle if c.fileno() == fd]:
            self._idle.remove(connection)
            connection.close()

    def _close(self) -> None:
        for connection in self._idle:
            connection.close()
        self._epoll.close()


def _receive(connection: socket.socket) -> bytes:
    """What is there. Of TLS all that has been decrypted: no descriptor would tell of it."""
    data = connection.recv(_READ_BYTES)
    if isinstance(connection, ssl.SSLSocket):
        while connection.pending():
            data += connection.recv(_READ_BYTES)
    return data
