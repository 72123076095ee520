"""Placement rules from outside: what they are shown and decide, and what becomes of bad ones."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import pytest

from smmf_core.native import _scheduler
from smmf_core.native._scheduler import Scheduler, Seat

MODEL, SLOTS = 7, 2
Rule = Callable[[list[Seat], int], int]


def scheduler(rule: Rule, workers: int = 3) -> Scheduler:
    made = Scheduler()
    made.set_model(MODEL, _scheduler.EXTERNAL, 0, 0, rule)
    for worker in range(workers):
        made.worker_up(worker, MODEL, SLOTS, 1.0 + worker)
    return made


def place(by: Scheduler, *keys: int, width: int = 1) -> list[int]:
    """The workers that take these requests."""
    for key in keys:
        by.submit(key, MODEL, 0, 0, width, 10, math.inf, 0.0)
    return [worker for _, worker in by.poll(0.0)[0]]


def test_a_rule_sees_the_workers_with_room_and_chooses_among_them() -> None:
    asked: list[tuple[list[Seat], int]] = []

    def last(seats: list[Seat], width: int) -> int:
        asked.append((seats, width))
        return len(seats) - 1

    it = scheduler(last)
    assert place(it, 1, 2, 3) == [2, 2, 1]
    assert asked[0] == ([Seat(0, 2, 0, 1.0), Seat(1, 2, 0, 2.0), Seat(2, 2, 0, 3.0)], 1)
    assert [seat.worker for seat in asked[2][0]] == [0, 1]


def test_a_rule_is_not_asked_when_nobody_has_room() -> None:
    asked: list[int] = []
    it = scheduler(lambda seats, width: asked.append(width) or 0, workers=1)
    assert place(it, 1, 2, 3) == [0, 0]
    assert asked == [1, 1]


def test_a_rule_is_told_how_many_slots_are_needed() -> None:
    asked: list[tuple[int, int]] = []

    def first(seats: list[Seat], width: int) -> int:
        asked.append((len(seats), width))
        return 0

    it = scheduler(first)
    place(it, 1)
    assert place(it, 2, width=2) == [1]
    assert asked == [(3, 1), (2, 2)]


def raising(seats: list[Seat], width: int) -> int:
    raise ValueError("no idea")


@pytest.mark.parametrize("rule", [raising, lambda seats, width: 3, lambda seats, width: -1])
def test_a_bad_rule_is_told_of_once_and_the_default_takes_its_place(
    rule: Rule, capfd: pytest.CaptureFixture[str]
) -> None:
    calls: list[int] = []

    def counted(seats: list[Seat], width: int) -> int:
        calls.append(width)
        return rule(seats, width)

    it = scheduler(counted)
    assert place(it, 1, 2, 3) == [0, 1, 2]  # least connections
    assert calls == [1]
    assert capfd.readouterr().err.count("Traceback") == 1


def test_a_rule_stays_the_same_over_updates_of_the_registry(
    capfd: pytest.CaptureFixture[str],
) -> None:
    it = scheduler(raising)
    place(it, 1)
    it.set_model(MODEL, _scheduler.EXTERNAL, 0, 0, raising)
    place(it, 2)
    assert capfd.readouterr().err.count("Traceback") == 1


def test_another_rule_takes_over() -> None:
    it = scheduler(lambda seats, width: 0)
    assert place(it, 1) == [0]
    it.set_model(MODEL, _scheduler.EXTERNAL, 0, 0, lambda seats, width: 1)
    assert place(it, 2) == [1]
    it.set_model(MODEL, _scheduler.LEAST_CONNECTIONS, 0, 0)
    assert place(it, 3) == [2]


def test_a_rule_that_would_end_the_process_does_not(capfd: pytest.CaptureFixture[str]) -> None:
    it = scheduler(lambda seats, width: sys.exit(3))
    assert place(it, 1, 2) == [0, 1]  # least connections
    assert capfd.readouterr().err.count("SystemExit: 3") == 1


def test_a_rule_stays_when_its_successor_is_refused() -> None:
    it = scheduler(lambda seats, width: 2)
    with pytest.raises(ValueError, match="unknown placement strategy"):
        it.set_model(MODEL, 99, 0, 0, lambda seats, width: 0)
    assert place(it, 1) == [2]
