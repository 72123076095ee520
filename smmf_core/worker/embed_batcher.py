"""Which waiting texts make the next step of an embedding engine.

Pure: time is a parameter. Owns the order in which texts are served; must not know what they say.

The unit of a step is a text, not a request: a step takes texts of many requests. `next` decides:

1. The request that is served next is the one of the highest priority, then the one that is most
   behind a fair share: all that wait share the steps' tokens equally (weighted fair queueing, with
   a clock that moves by tokens served per request that waits), then the oldest. So a text of its
   own waits for a step or two behind a request of thousands, and thousands do not wait for ever
   behind an endless row of single ones.
2. The step's length bucket is that of its longest text. Buckets are as wide as padding is cheap to
   the engine, and at least a quarter of their texts' length.
3. Texts of that bucket join, one a request's turn, until max_texts or max_tokens (with padding) are
   reached; the first text always joins.
4. Nothing waits for a fuller batch, except under static batching: until max_delay_s after the
   oldest request came, or for a full batch.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left

_GROWTH = 4  # a bucket spans at least a quarter of the length that it starts at

Place = tuple[int, int]
"""(serial of the request, number of the text in it)"""


class _Request:
    """The texts of one request that wait, by bucket, the longest of each last."""

    __slots__ = ("arrived_at", "lengths", "pending", "priority", "serial", "tag")

    def __init__(
        self, serial: int, lengths: list[int], priority: int, tag: float, now: float
    ) -> None:
        self.serial = serial
        self.lengths = lengths
        self.priority = priority
        self.tag = tag  # the clock when it came, and the tokens it has had since
        self.arrived_at = now
        self.pending: dict[int, list[int]] = {}

    @property
    def rank(self) -> tuple[int, float, int]:
        return -self.priority, self.tag, self.serial

    def longest(self, bucket: int) -> int:
        return self.lengths[self.pending[bucket][-1]]

    def take(self, bucket: int) -> int:
        numbers = self.pending[bucket]
        number = numbers.pop()
        if not numbers:
            del self.pending[bucket]
        self.tag += self.lengths[number]
        return number

    def left(self) -> int:
        """Tokens that wait."""
        return sum(self.lengths[n] for numbers in self.pending.values() for n in numbers)


class EmbedBatcher:
    def __init__(
        self, max_texts: int, max_tokens: int, max_delay_s: float | None, bucket_tokens: int
    ) -> None:
        """`max_tokens` of a step with padding, 0: no limit. `max_delay_s` None: not static."""
        self.waiting = 0  # texts
        self._max_texts = max_texts
        self._max_tokens = max_tokens or math.inf
        self._max_delay_s = max_delay_s
        self._bounds = [bucket_tokens]
        self._requests: dict[int, _Request] = {}  # those with texts that wait, oldest first
        self._waiting_tokens = 0
        self._clock = 0.0  # tokens that a request had which has always been here

    def add(self, serial: int, lengths: list[int], priority: int, now: float) -> None:
        """Queue a request's texts by their lengths in tokens; at least one."""
        request = _Request(serial, lengths, priority, self._clock, now)
        for number in sorted(range(len(lengths)), key=lengths.__getitem__):
            request.pending.setdefault(self._bucket(lengths[number]), []).append(number)
        self._requests[serial] = request
        self.waiting += len(lengths)
        self._waiting_tokens += sum(lengths)

    def cancel(self, serial: int) -> None:
        """Forget what waits of a request."""
        request = self._requests.pop(serial, None)
        if request is not None:
            self.waiting -= sum(map(len, request.pending.values()))
            self._waiting_tokens -= request.left()

    def next(self, now: float) -> list[Place]:
        """The texts of the next step, longest bucket mates together; they wait no more."""
        if self.next_deadline() > now:
            return []
        first = min(self._requests.values(), key=lambda request: request.rank)
        self._clock = max(self._clock, first.tag)
        bucket = max(first.pending)
        turns = [(r.rank, r) for r in self._requests.values() if bucket in r.pending]
        heapq.heapify(turns)
        places: list[Place] = []
        padded = 0
        while turns and len(places) < self._max_texts:
            request = turns[0][1]
            padded = max(padded, request.longest(bucket))
            if places and padded * (len(places) + 1) > self._max_tokens:
                break
            places.append((request.serial, request.take(bucket)))
            if bucket in request.pending:
                heapq.heapreplace(turns, (request.rank, request))
            else:
                heapq.heappop(turns)
        self._serve(places)
        return places

    def next_deadline(self) -> float:
        """When next() has texts if nothing else happens: in the past means at once."""
        if not self._requests:
            return math.inf
        oldest = next(iter(self._requests.values()))
        is_full = self.waiting >= self._max_texts or self._waiting_tokens >= self._max_tokens
        if self._max_delay_s is None or is_full:
            return oldest.arrived_at
        return oldest.arrived_at + self._max_delay_s

    def _serve(self, places: list[Place]) -> None:
        served = sum(self._requests[serial].lengths[number] for serial, number in places)
        self._clock += served / len(self._requests)
        self._waiting_tokens -= served
        self.waiting -= len(places)
        for serial in {serial for serial, _ in places}:
            if not self._requests[serial].pending:
                del self._requests[serial]

    def _bucket(self, length: int) -> int:
        """The number of the bucket that holds a length; the longer, the higher."""
        bounds = self._bounds
        while bounds[-1] < length:
            bounds.append(bounds[-1] + max(bounds[0], bounds[-1] // _GROWTH))
        return bisect_left(bounds, length)
