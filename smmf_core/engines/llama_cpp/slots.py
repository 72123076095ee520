"""Which sequence id of llama.cpp's KV cache a request takes, and what it finds there.

Owns the slots and what each is known to hold; must not call llama.cpp: it answers with a Seat.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SHORT_TAIL = 64  # tokens: what a request may overwrite of a cached text that it goes on from
LEAST_COPY = 32  # tokens: a shorter prefix is computed again rather than copied
_LEAST_ROOM = 8  # positions of a slot that fills a gap: its step is planned anew so often
COPY_SHARE = 16  # a copy moves the whole slot: worth it for a 16th of the context


@dataclass(slots=True, eq=False)
class Slot:
    """A sequence id. `tokens[:held]` have their keys and values in the cache, made with `adapter`.

    `owner` is the request that runs in it; without one the slot's content is a cached prefix,
    which may be followed by `filled` positions of no meaning. `size` positions are the most.
    """

    id: int
    size: int = 0
    tokens: list[int] = field(default_factory=list)
    held: int = 0
    adapter: Any = None
    owner: Any = None
    used: int = 0  # when it was left, as a count
    filled: int = 0
    is_poisoned: bool = False  # its cells hold what is not a number

    def room(self) -> int:
        """Positions that are not taken."""
        return self.size - self.held - self.filled

    def forget(self) -> None:
        self.tokens, self.held = [], 0


@dataclass(slots=True)
class Seat:
    """The answer to a request: its slot, and how many tokens it finds there, or first copies."""

    slot: Slot
    found: int
    source: Slot | None = None  # copy its content into `slot`


class Slots:
    """The slots of one context. `has_streams`: every slot's cache is a buffer of its own, so that
    a copy moves all of it (else slots share cells, and a copy costs nothing)."""

    def __init__(self, count: int, context_length: int, has_streams: bool) -> None:
        self.slots = [Slot(number, context_length) for number in range(count)]
        self._has_streams = has_streams
        self._least_copy = LEAST_COPY
        if has_streams:
            self._least_copy = max(LEAST_COPY, context_length // COPY_SHARE)
        self._left = 0

    def seat(self, tokens: list[int], adapter: Any, reuse: bool = True) -> Seat | None:
        """A place for a request with these tokens; None when it should wait.

        1. No slot is free: wait. 2. A running prompt that is not computed yet will hold much more
        of it than any slot does now: wait for that. 3. The slot that holds the longest prefix is
        free and loses little: take it. 4. The prefix is long enough: copy it to another free slot.
        5. The free slot with the longest prefix, if that is long enough to decide. 6. Else the free
        slot that costs least (see `_cheapest`).
        """
        free = [slot for slot in self.slots if slot.owner is None]
        if not free:
            return None
        if not reuse:
            return Seat(self._cheapest(free), 0)
        most = len(tokens) - 1  # the last one is computed in any case: its logits are wanted
        prefixes = {
            slot.id: min(most, common_prefix(slot.tokens, tokens))
            for slot in self.slots
            if slot.tokens and slot.adapter is adapter
        }
        held = {number: min(n, self.slots[number].held) for number, n in prefixes.items()}
        longest = max(held.values(), default=0)
        if max(prefixes.values(), default=0) >= longest + self._least_copy:
            return None
        if longest == 0:
            return Seat(self._cheapest(free), 0)
        best = max(self.slots, key=lambda slot: (held.get(slot.id, 0), slot.owner is None))
        others = [slot for slot in free if slot is not best]
        is_spared = best.held - longest > SHORT_TAIL and bool(others)
        if best.owner is None and not is_spared:
            return Seat(best, longest)
        if longest >= self._least_copy and others:
            return Seat(self._cheapest(others), longest, best)
        own = max(free, key=lambda slot: held.get(slot.id, 0))
        if held.get(own.id, 0) >= LEAST_COPY and own.held - held[own.id] <= SHORT_TAIL:
            return Seat(own, held[own.id])
        slot = self._cheapest(free)
        return Seat(slot, held.get(slot.id, 0))

    def leave(self, slot: Slot) -> None:
        """Its request is gone; what it computed stays as a prefix for others."""
        self._left += 1
        slot.owner, slot.used = None, self._left
        slot.tokens = slot.tokens[: slot.held]

    def cached(self) -> list[Slot]:
        """Free slots that hold something, the longest unused first."""
        found = [slot for slot in self.slots if slot.owner is None and slot.held]
        return sorted(found, key=lambda slot: slot.used)

    def fillers(self) -> list[Slot]:
        """Free slots that can take positions of no meaning for a while, where that helps."""
        if not self._has_streams:
            return []
        return [slot for slot in self.slots if slot.owner is None and slot.room() >= _LEAST_ROOM]

    def overfilled(self) -> list[Slot]:
        return [slot for slot in self.slots if slot.filled and slot.room() < _LEAST_ROOM]

    def poisoned(self) -> list[Slot]:
        return [slot for slot in self.slots if slot.is_poisoned]

    def _cheapest(self, free: list[Slot]) -> Slot:
        """1. Beside running ones: llama.cpp computes sequences together whose ids follow each
        other. 2. Empty. 3. The longest unused. 4. The lowest id."""
        running = {slot.id for slot in self.slots if slot.owner is not None}

        def cost(slot: Slot) -> tuple[int, bool, int, int]:
            neighbours = (slot.id - 1 in running) + (slot.id + 1 in running)
            return -neighbours, slot.held > 0, slot.used, slot.id

        return min(free, key=cost)


def common_prefix(one: list[int], other: list[int]) -> int:
    """How many tokens both begin with. Compares slices: that is C's speed."""
    high = min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    low = 0  # equal up to here, different before `high`
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low
