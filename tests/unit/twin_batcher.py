"""Reference twin of the native Batcher: a plain list, every rule spelled out.

It owns nothing but its answers; it must stay obviously correct and may be slow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(eq=False)
class Item:
    key: int
    width: int
    tokens: int
    priority: int
    arrival: int
    arrived_at: float
    running: bool = False


class TwinBatcher:
    def __init__(self, size: int, tokens: int, max_delay_s: float, static: bool) -> None:
        self.size, self.tokens, self.max_delay_s, self.static = size, tokens, max_delay_s, static
        self.items: dict[int, Item] = {}
        self.arrivals = 0

    def add(self, key: int, width: int, tokens: int, priority: int, now: float) -> None:
        self.arrivals += 1
        self.items[key] = Item(key, min(width, self.size), tokens, priority, self.arrivals, now)

    def cancel(self, key: int) -> bool:
        return self.items.pop(key, None) is not None

    def finish(self, key: int) -> bool:
        return key in self.items and self.items[key].running and self.cancel(key)

    def next(self, now: float) -> list[int]:
        if self.static and self.due() > now:
            return []
        joining: list[int] = []
        left = self.tokens
        for item in self.queue():
            if not self.fits(item, left):
                break
            item.running = True
            left -= item.tokens
            joining.append(item.key)
        return joining

    def next_deadline(self) -> float:
        queue = self.queue()
        return self.due() if queue and self.fits(queue[0], self.tokens) else math.inf

    @property
    def waiting(self) -> int:
        return len(self.queue())

    @property
    def running(self) -> int:
        return sum(item.width for item in self.items.values() if item.running)

    def queue(self) -> list[Item]:
        waiting = [item for item in self.items.values() if not item.running]
        return sorted(waiting, key=lambda item: (-item.priority, item.arrival))

    def fits(self, item: Item, tokens_left: int) -> bool:
        if self.running + item.width > self.size:
            return False
        return self.tokens == 0 or self.running == 0 or item.tokens <= tokens_left

    def due(self) -> float:
        queue = self.queue()
        if not queue or (self.static and self.running):
            return math.inf
        oldest = min(queue, key=lambda item: item.arrival).arrived_at
        tokens_fill = self.tokens > 0 and sum(item.tokens for item in queue) >= self.tokens
        if not self.static or sum(item.width for item in queue) >= self.size or tokens_fill:
            return oldest
        return oldest + self.max_delay_s
