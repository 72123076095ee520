"""How many replicas a model should have: by the use of its slots and the time requests wait.

Pure. Owns the stabilisation windows; must not load or stop anything. The rule is that of
Kubernetes' HorizontalPodAutoscaler (a ratio to a target, bounded; the lowest recommendation of an
upscale window, the highest of a downscale window), with the queue counted as load and its waiting
time as an alarm.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

TARGET_USE = 0.7  # of the slots (Knative's target utilisation): the rest takes bursts
LONG_WAIT_S = 1.0  # a request that waits longer asks for one more than its slots' use does
UP_WINDOW_S = 5.0  # a burst that is over sooner is not worth a load (Knative's panic window: 6 s)
DOWN_WINDOW_S = 300.0  # HPA's default: unloading is cheap, loading again is not
TICK_GAP_S = 10.0  # nobody observed for so long: what was seen before says nothing


@dataclass(frozen=True, slots=True)
class Load:
    """What a model has to do now, over all Routers."""

    waiting: int  # requests without a slot
    running: int
    oldest_wait_s: float
    slots: int  # of one replica
    ready: int  # replicas that serve
    replicas: int  # those and the ones on their way


class Autoscaler:
    """Of one model. Call `wanted` about once a second.

    To zero and back is not decided here: a model that is not loaded stays so until a request loads
    it, and the last replica goes by `keep_alive`. While it is loaded the least is one.
    """

    def __init__(self, minimum: int, maximum: int) -> None:
        self._minimum = minimum
        self._maximum = maximum
        self._seen: deque[tuple[float, int]] = deque()  # (when, recommended)
        self._known = 0  # replicas: more than these are somebody else's wish

    def wanted(self, load: Load, now: float) -> int:
        """Replicas to have.

        1. None is loaded: `min_replicas`, whatever waits (zero: the first request loads one).
        2. More than now, by every recommendation of the last UP_WINDOW_S: the lowest of them.
        3. Fewer than now, by every one of the last DOWN_WINDOW_S: the highest of them.
        4. Else as many as now, within the bounds.
        5. One moment is no window, and the operator's word is not undone at once: what there is at
           first, and what has been added, counts as recommended.
        """
        if not load.replicas:  # 1
            self._seen.clear()
            return self._minimum
        if self._seen and now - self._seen[-1][0] > TICK_GAP_S:
            self._seen.clear()
        if not self._seen or load.replicas > self._known:  # 5
            self._seen.append((now, load.replicas))
        self._seen.append((now, self._recommended(load)))
        while self._seen[0][0] < now - DOWN_WINDOW_S:
            self._seen.popleft()
        lowest = min(number for when, number in self._seen if when >= now - UP_WINDOW_S)
        highest = max(number for _, number in self._seen)
        wanted = self._bounded(min(max(load.replicas, lowest), highest))  # 2, 3, 4
        self._known = max(load.replicas, wanted)
        return wanted

    def _recommended(self, load: Load) -> int:
        """By one look at the load:

        1. None serves yet: what has piled up meanwhile says nothing about what one can do.
        2. Enough for TARGET_USE of the slots.
        3. But one more while requests wait for long and none is on its way (long answers in few
           slots, a replica that is slow).
        """
        if not load.ready:  # 1
            return self._bounded(load.replicas)
        enough = math.ceil((load.running + load.waiting) / (load.slots * TARGET_USE))  # 2
        if load.oldest_wait_s > LONG_WAIT_S and load.ready == load.replicas:  # 3
            enough = max(enough, load.replicas + 1)
        return self._bounded(enough)

    def _bounded(self, replicas: int) -> int:
        return max(self._minimum, 1, min(replicas, self._maximum))
