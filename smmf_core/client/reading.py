"""A stream's parts as deltas, and how much of them has been read.

Owns what the sync and the async stream share; must not wait.
"""

from __future__ import annotations

from collections import deque

from smmf_core.client.driver import Driver
from smmf_core.client.errors import ClientError, refused
from smmf_core.client.exchange import Exchange, Part, header_lines
from smmf_core.client.types import Delta, Usage, deltas
from smmf_core.lane_messages import WINDOW_BYTES, Answered, Began

_GRANT_BYTES = WINDOW_BYTES // 4


class Reading:
    """`take` its parts until `is_over`; then `next` what they say."""

    def __init__(self, driver: Driver, exchange: Exchange) -> None:
        self.request_id = ""
        self.instance = ""
        self.usage: Usage | None = None  # once the stream has ended
        self.is_over = False
        self._driver = driver
        self._exchange = exchange
        self._ready: deque[Delta | ClientError] = deque()
        self._read = self._chunk = 0  # bytes that were read and not granted; of what is ready

    @property
    def has_begun(self) -> bool:
        return self.is_over or self._exchange.has_part

    def take(self, part: Part) -> None:
        """Raises ClientError when it is the stream's end, and not a good one."""
        if isinstance(part, bytes):
            self._ready.extend(deltas(part))
            self._chunk += len(part)
            return
        if isinstance(part, Began):
            headers = header_lines(part.headers)
            self.request_id = headers.get("x-request-id", "")
            self.instance = headers.get("x-smmf-instance", "")
            return
        self.is_over = True
        if isinstance(part, Answered):
            raise refused(part.status, part.body, header_lines(part.headers))
        if isinstance(part, ClientError):
            raise part

    def next(self) -> Delta | None:
        """What is ready; None: take another part. Raises ClientError."""
        try:
            delta = self._ready.popleft()
        except IndexError:  # another thread may just have cancelled
            self._grant()
            return None
        if isinstance(delta, ClientError):
            self.is_over = True
            raise delta
        if delta.usage is not None:
            self.usage = delta.usage
        return delta

    def cancel(self) -> None:
        """The server forgets it; what was read stays read."""
        self._ready.clear()
        if not self.is_over:
            self.is_over = True
            if not self._exchange.is_over:
                self._driver.stop(self._exchange)

    def _grant(self) -> None:
        self._read += self._chunk
        self._chunk = 0
        if self._read >= _GRANT_BYTES and not self._exchange.is_over:
            self._driver.granted(self._exchange, self._read)
            self._read = 0
