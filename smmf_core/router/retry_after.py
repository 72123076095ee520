"""How long a queue takes, from the measured rate at which requests end. Pure."""

from __future__ import annotations

from collections import deque

_SAMPLES = 64  # of the last requests: enough to be steady, few enough to follow a change
_UNKNOWN_S = 1.0  # before anything has ended
_MAX_S = 60.0  # clients sleep whatever they are told; above a minute it is better to ask again


class ServiceRate:
    """Requests per second that end, per model."""

    def __init__(self) -> None:
        self._ended: dict[int, deque[float]] = {}

    def ended(self, model: int, now: float) -> None:
        times = self._ended.get(model)
        if times is None:
            times = self._ended[model] = deque(maxlen=_SAMPLES)
        times.append(now)

    def wait_s(self, model: int, waiting: int) -> float:
        """Seconds until `waiting` requests have been served, between 1 and 60."""
        times = self._ended.get(model)
        if times is None or len(times) < 2 or times[-1] <= times[0]:
            return _UNKNOWN_S
        per_request_s = (times[-1] - times[0]) / (len(times) - 1)
        return min(_MAX_S, max(_UNKNOWN_S, per_request_s * waiting))
