"""What health is judged by: a window of samples, a bound with hysteresis, a row of probes.

Pure. Owns the arithmetic; must not know what a crossing leads to.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

QUANTILE = 0.95  # of the times to first token
WELL_SHARE = 0.8  # of a bound: below it is well again, between nothing changes
WELL_WINDOWS = 0.5  # for so many windows it must have been well
PROBE_EVERY_S = 2.0
PROBE_TIMEOUT_S = 10.0  # a probe without an answer for so long is a bad one


@dataclass(slots=True)
class Threshold:
    """One value against its bound; 0: never crossed."""

    cause: str
    action: str
    bound: float
    window_s: float
    is_crossed: bool = False
    reason: str = ""  # of the last crossing
    _well_since: float = math.inf

    def reset(self) -> None:
        self.is_crossed, self._well_since = False, math.inf

    def judge(self, value: float | None, now: float) -> bool:
        """Whether `is_crossed` has changed. `value` None: nothing to judge by, which is well."""
        if not self.bound:
            return False
        if value is not None and value >= self.bound * WELL_SHARE:
            self._well_since = math.inf
            crosses = value > self.bound and not self.is_crossed
            self.is_crossed = self.is_crossed or crosses
            return crosses
        self._well_since = min(self._well_since, now)
        clears = self.is_crossed and now - self._well_since >= self.window_s * WELL_WINDOWS
        self.is_crossed = self.is_crossed and not clears
        return clears


class Window:
    """How requests went in the last `window_s`."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._first_token_s: deque[tuple[float, float]] = deque()
        self._ended: deque[tuple[float, int, int]] = deque()  # (when, finished, faults)

    def clear(self) -> None:
        self._first_token_s.clear()
        self._ended.clear()

    def add(self, first_token_s: list[float], finished: int, faults: int, now: float) -> None:
        self._first_token_s.extend((now, seconds) for seconds in first_token_s)
        if finished or faults:
            self._ended.append((now, finished, faults))

    def forget(self, now: float) -> None:
        """What is too old."""
        for samples in (self._first_token_s, self._ended):
            while samples and samples[0][0] < now - self._window_s:
                samples.popleft()

    def response_time_s(self, min_samples: int) -> float | None:
        """The 95th percentile, by nearest rank; None: too few samples."""
        if len(self._first_token_s) < max(1, min_samples):
            return None
        ranked = sorted(seconds for _, seconds in self._first_token_s)
        return ranked[math.ceil(QUANTILE * len(ranked)) - 1]

    def error_rate(self, min_samples: int) -> float | None:
        """None: too few requests ended."""
        faults = sum(row[2] for row in self._ended)
        total = self.finished + faults
        return faults / total if total >= max(1, min_samples) else None

    @property
    def finished(self) -> int:
        return sum(row[1] for row in self._ended)


class Probes:
    """Small requests to an instance out of rotation: how many in a row went well, or did not."""

    def __init__(self) -> None:
        self.good = 0
        self.bad = 0
        self._sent_at = -math.inf
        self._is_open = False

    def is_due(self, now: float) -> bool:
        """Whether to send one now; True counts as sent."""
        if self._is_open and now - self._sent_at >= PROBE_TIMEOUT_S:
            self.answered(False)
        if self._is_open or now - self._sent_at < PROBE_EVERY_S:
            return False
        self._sent_at, self._is_open = now, True
        return True

    def answered(self, is_good: bool) -> None:
        """An answer that comes after its time-out counts as one of its own."""
        self._is_open = False
        self.good, self.bad = (self.good + 1, 0) if is_good else (0, self.bad + 1)
