"""What the connections of one listening socket share, and what they ask of the application.

Owns the set of open connections and the time-out sweep; must not read or write bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from smmf_core.http.request import Request

if TYPE_CHECKING:
    from smmf_core.http.protocol import HttpProtocol

_SWEEP_S = 1.0  # coarse time-outs need no timer of their own


class Application(Protocol):
    def on_request(self, request: Request) -> None: ...
    def lines(self, request: Request) -> bytes:
        """Headers, as whole lines, of any answer to it, be it an error that it is not asked for."""

    def on_disconnect(self, request: Request) -> None:
        """The client went away before its response had ended."""

    def on_writable(self, request: Request) -> None:
        """The transport's buffer is empty again."""


class ServerState:
    """Open connections, counters and the clock; asked to sweep and to drain by its owner."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.connections: set[HttpProtocol] = set()
        self.is_draining = False
        self.bad_requests = 0
        self._sweep_at = 0.0

    def sweep(self, now: float) -> None:
        """End what is overdue; call it often, it works once a second."""
        if now >= self._sweep_at:
            self._sweep_at = now + _SWEEP_S
            for connection in [c for c in self.connections if c.deadline <= now]:
                connection.on_timeout()

    def begin_drain(self) -> None:
        """Idle connections close now, busy ones after their response."""
        self.is_draining = True
        for connection in list(self.connections):
            connection.on_drain()
