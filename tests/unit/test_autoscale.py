"""Autoscaling over simulated traces: it converges, stays within bounds and does not flap."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from smmf_core.controller.autoscale import (
    DOWN_WINDOW_S,
    LONG_WAIT_S,
    TARGET_USE,
    UP_WINDOW_S,
    Autoscaler,
    Load,
)

SLOTS = 4
ANSWER_S = 2.0


class Service:
    """A model with a queue, second by second. `arrivals(t)` are requests per second; a replica
    serves SLOTS at once, each in ANSWER_S, `load_s` after it was wanted."""

    def __init__(self, minimum: int, maximum: int, load_s: float = 10.0, replicas: int = 1) -> None:
        self._scaler = Autoscaler(minimum, maximum)
        self._load_s = load_s
        self._ready_at = [0.0] * replicas
        self._queue: list[float] = []  # when each came
        self._running: list[float] = []  # when each ends
        self.trace: list[int] = []
        self.longest_wait_s = 0.0

    def run(self, arrivals: Callable[[float], float], seconds: int) -> None:
        owed = 0.0
        start = len(self.trace)
        for now in map(float, range(start, start + seconds)):
            owed += arrivals(now)
            self._queue += [now] * int(owed)
            owed -= int(owed)
            self._serve(now)
            self._scale(now)

    def _serve(self, now: float) -> None:
        self._running = [end for end in self._running if end > now]
        ready = sum(at <= now for at in self._ready_at)
        while self._queue and len(self._running) < ready * SLOTS:
            self.longest_wait_s = max(self.longest_wait_s, now - self._queue.pop(0))
            self._running.append(now + ANSWER_S)

    def _scale(self, now: float) -> None:
        ready = sum(at <= now for at in self._ready_at)
        oldest = now - self._queue[0] if self._queue else 0.0
        load = Load(len(self._queue), len(self._running), oldest, SLOTS, ready, len(self._ready_at))
        wanted = self._scaler.wanted(load, now)
        del self._ready_at[wanted:]
        self._ready_at += [now + self._load_s] * (wanted - len(self._ready_at))
        self.trace.append(wanted)

    @property
    def changes(self) -> int:
        return sum(a != b for a, b in zip(self.trace, self.trace[1:], strict=False))


def enough(rate: float) -> int:
    return math.ceil(rate * ANSWER_S / (SLOTS * TARGET_USE))


def test_it_converges_to_what_a_steady_load_needs_and_stays() -> None:
    service = Service(1, 8)
    service.run(lambda _: 5.0, 1200)
    assert service.trace[-1] == enough(5.0)
    assert len(set(service.trace[-300:])) == 1


def test_a_ramp_is_followed_up_and_down_within_the_bounds() -> None:
    service = Service(1, 5)
    service.run(lambda now: now / 100, 1000)
    assert service.trace[-1] == 5
    assert service.trace == sorted(service.trace)  # never down on the way up
    service.run(lambda now: max(0.0, (2000 - now) / 100), 1000 + 2 * int(DOWN_WINDOW_S))
    assert service.trace[-1] == 1
    down = service.trace[1000 + int(DOWN_WINDOW_S) :]
    assert down == sorted(down, reverse=True)
    assert set(service.trace) <= {1, 2, 3, 4, 5}


def test_a_spike_that_is_over_soon_loads_nothing() -> None:
    service = Service(1, 8)
    service.run(lambda now: 8.0 if now == 100 else 0.5, 400)
    assert set(service.trace) == {1}


def test_a_spike_that_stays_is_answered_at_once_after_the_window() -> None:
    service = Service(1, 8)
    service.run(lambda now: 10.0 if now >= 100 else 0.1, 100 + int(UP_WINDOW_S) + 5)
    assert service.trace[99] == 1
    assert service.trace[-1] >= enough(10.0)


@pytest.mark.parametrize("period_s", [4, 20, 60, 240])
def test_a_load_that_comes_and_goes_does_not_flap(period_s: int) -> None:
    service = Service(1, 8)
    service.run(lambda now: 8.0 if now % period_s < period_s / 2 else 0.0, 2400)
    assert len(set(service.trace[1200:])) == 1
    assert service.changes <= 8


def test_use_around_the_edge_of_a_replica_does_not_flap() -> None:
    service = Service(1, 8)
    edge = 2 * SLOTS * TARGET_USE / ANSWER_S
    service.run(lambda now: edge + (0.3 if int(now) % 2 else -0.3), 2400)
    assert len(set(service.trace[900:])) == 1


def test_an_idle_model_goes_down_to_its_minimum_but_not_to_zero() -> None:
    for minimum, wanted in ((0, 1), (1, 1), (2, 2)):
        service = Service(minimum, 6, replicas=5)
        service.run(lambda _: 0.0, int(DOWN_WINDOW_S) + 10)
        assert service.trace[int(DOWN_WINDOW_S) - 1] == 5
        assert service.trace[-1] == wanted


def test_what_the_operator_added_stays_for_a_while() -> None:
    scaler = Autoscaler(1, 4)
    assert [scaler.wanted(idle(1), float(now)) for now in range(3)] == [1, 1, 1]
    assert [scaler.wanted(idle(3), now) for now in (3.0, 10.0)] == [3, 3]
    counts = [scaler.wanted(idle(3), 10.0 + 5 * n) for n in range(100)]
    assert counts[-1] == 1, "as any others that nobody needs"


def idle(replicas: int) -> Load:
    return Load(waiting=0, running=0, oldest_wait_s=0.0, slots=4, ready=replicas, replicas=replicas)


def test_one_that_is_not_loaded_is_left_to_its_first_request() -> None:
    scaler = Autoscaler(0, 4)
    assert scaler.wanted(Load(9, 0, 30.0, SLOTS, ready=0, replicas=0), 0.0) == 0
    assert Autoscaler(2, 4).wanted(Load(0, 0, 0.0, SLOTS, ready=0, replicas=0), 0.0) == 2


def test_what_piles_up_while_the_first_replica_loads_calls_for_no_more() -> None:
    service = Service(0, 8, load_s=60.0)
    service._ready_at = [60.0]
    service.run(lambda now: 0.1 if now < 60 else 0.2, 120)
    assert set(service.trace) == {1}


def test_long_waits_call_for_one_more_even_where_slots_look_free() -> None:
    scaler = Autoscaler(1, 4)
    load = Load(1, 1, LONG_WAIT_S + 1, SLOTS, ready=2, replicas=2)
    wanted = [scaler.wanted(load, float(now)) for now in range(int(UP_WINDOW_S) + 2)]
    assert wanted == [2] * (int(UP_WINDOW_S) + 1) + [3]


def test_while_one_is_on_its_way_waiting_calls_for_no_other() -> None:
    scaler = Autoscaler(1, 4)
    load = Load(1, 4, 20.0, SLOTS, ready=1, replicas=2)
    assert {scaler.wanted(load, float(now)) for now in range(60)} == {2}


def test_bounds_hold_at_once_whatever_was_seen() -> None:
    scaler = Autoscaler(2, 3)
    assert scaler.wanted(Load(0, 0, 0.0, SLOTS, ready=1, replicas=1), 0.0) == 2
    assert scaler.wanted(Load(500, 9, 9.0, SLOTS, ready=7, replicas=7), 1.0) == 3


def test_a_controller_that_stood_still_begins_again() -> None:
    scaler = Autoscaler(1, 8)
    idle = Load(0, 0, 0.0, SLOTS, ready=4, replicas=4)
    assert scaler.wanted(idle, 0.0) == 4
    assert scaler.wanted(idle, DOWN_WINDOW_S + 1.0) == 4
