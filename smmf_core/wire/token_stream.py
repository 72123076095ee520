"""TokenWriter: the Worker's end of one TokenStream, a ring plus the overflow for a full ring.

The engine never waits: what a full ring cannot take is kept here, merged per request and bounded,
until the Router has made room. Must not interpret payloads beyond merging TOKENS.
"""

from __future__ import annotations

from smmf_core.messages import (
    DATA,
    FAIL,
    TOKENS,
    Failure,
    Record,
    encode,
)
from smmf_core.native._ring import RingWriter

OVERFLOW_BYTES = 1 << 20  # per request: minutes of text; beyond it the Router is not coming back
_STREAMED = (TOKENS, DATA)  # a whole answer is bounded by the context, whatever its size
_ID_BYTES = 4


class TokenWriter:
    """Writes records to one Router. `space_fd` is readable when a full ring has room again."""

    def __init__(self, memfd: int, data_fd: int, space_fd: int) -> None:
        self._ring = RingWriter(memfd, data_fd, space_fd)
        self.space_fd = space_fd
        self.data_fd = data_fd
        self._waiting: list[Record] = []
        self._dropped = 0  # how many have left _waiting at its front
        self._last_tokens: dict[tuple[int, int], int] = {}  # (key, choice) -> count from the first
        self._held_bytes: dict[int, int] = {}
        self._failed: set[int] = set()

    @property
    def is_blocked(self) -> bool:
        return bool(self._waiting)

    @property
    def used_bytes(self) -> int:
        return self._ring.used_bytes

    @property
    def free_bytes(self) -> int:
        return self._ring.free_bytes

    def write(self, records: list[Record]) -> list[int]:
        """Publish all records or keep what does not fit.

        Returns the keys of requests that outgrew OVERFLOW_BYTES: each gets a FAIL record from here
        and must be forgotten by the caller.
        """
        if not self._waiting:
            written = self._ring.write(records)
            if written == len(records):
                return []
            records = records[written:]
        failed = [key for record in records if (key := self._keep(record)) is not None]
        self.retry()
        return failed

    def retry(self) -> None:
        """Write what waits, as far as there is room."""
        written = self._ring.write(self._waiting)
        for kind, key, _, _, _, payload in self._waiting[:written]:
            if kind in _STREAMED:
                self._held_bytes[key] -= len(payload)
        del self._waiting[:written]
        self._dropped += written
        if not self._waiting:
            self._last_tokens.clear()
            self._held_bytes.clear()
            self._failed.clear()

    def step(self, steps: int) -> None:
        self._ring.step(steps)

    def close(self) -> None:
        self._ring.close()

    def _keep(self, record: Record) -> int | None:
        kind, key, attempt, choice, _, payload = record
        if key in self._failed:
            return None
        held = self._held_bytes.get(key, 0) + (len(payload) if kind in _STREAMED else 0)
        if held > OVERFLOW_BYTES:
            failure = Failure(
                "internal_error", "The answer could not be delivered: its router stalled."
            )
            self._failed.add(key)
            self._waiting.append((FAIL, key, attempt, 0, 0, encode(failure)))
            return key
        self._held_bytes[key] = held
        if kind == TOKENS and self._merge(record):
            return None
        self._last_tokens.pop((key, choice), None)
        if kind == TOKENS:
            self._last_tokens[key, choice] = self._dropped + len(self._waiting)
        self._waiting.append(record)
        return None

    def _merge(self, record: Record) -> bool:
        """Put tokens behind the last ones of their choice; not into the first, which may be half
        written."""
        at = self._last_tokens.get((record[1], record[3]), -1) - self._dropped
        if at < 1:
            return False
        self._waiting[at] = _merged(self._waiting[at], record)
        return True


def _merged(a: Record, b: Record) -> Record:
    kind, key, attempt, choice, count, payload = a
    split_a, split_b = count * _ID_BYTES, b[4] * _ID_BYTES
    ids = payload[:split_a] + b[5][:split_b]
    return kind, key, attempt, choice, count + b[4], ids + payload[split_a:] + b[5][split_b:]
