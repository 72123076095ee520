"""The batcher's rules, one by one, from the outside; parity covers their combinations."""

from __future__ import annotations

import math

import pytest

from smmf_core.native._batcher import Batcher


def continuous(size: int = 4, tokens: int = 0) -> Batcher:
    return Batcher(size, tokens, 0.0, False)


def add(
    to: Batcher, *keys: int, width: int = 1, tokens: int = 10, priority: int = 0, now: float = 0.0
) -> None:
    for key in keys:
        to.add(key, width, tokens, priority, now)


def test_requests_join_and_leave_between_steps() -> None:
    it = continuous(2)
    add(it, 1, 2, 3)
    assert it.next(0.0) == [1, 2]
    assert (it.waiting, it.running) == (1, 2)
    assert it.next(0.0) == []
    assert it.finish(1)
    assert it.next(0.0) == [3]


def test_priority_then_arrival() -> None:
    it = continuous(9)
    add(it, 1, 2)
    add(it, 3, priority=1)
    add(it, 4, priority=-1)
    add(it, 5, priority=1)
    assert it.next(0.0) == [3, 5, 1, 2, 4]


def test_width_counts_sequences_and_the_head_is_not_overtaken() -> None:
    it = continuous(4)
    add(it, 1, width=3)
    add(it, 2, width=2)
    add(it, 3, width=1)
    assert it.next(0.0) == [1]
    it.finish(1)
    assert it.next(0.0) == [2, 3]
    assert it.running == 3


def test_wider_than_the_batch_is_the_whole_batch() -> None:
    it = continuous(4)
    add(it, 1, width=9)
    assert it.next(0.0) == [1]
    assert it.running == 4
    it.finish(1)
    assert it.running == 0


def test_the_token_budget_is_per_step() -> None:
    it = continuous(9, tokens=25)
    add(it, 1, 2, 3, 4, 5)
    assert it.next(0.0) == [1, 2]
    assert it.next_deadline() <= 0.0
    assert it.next(0.0) == [3, 4]
    assert it.next(0.0) == [5]


def test_only_an_empty_batch_takes_more_than_the_budget() -> None:
    it = continuous(9, tokens=25)
    add(it, 1)
    add(it, 2, tokens=99)
    assert it.next(0.0) == [1]
    assert it.next(0.0) == []
    assert it.next_deadline() == math.inf
    it.finish(1)
    assert it.next(0.0) == [2]


def test_finish_is_for_running_and_cancel_for_both() -> None:
    it = continuous(1)
    add(it, 1, 2, 3)
    it.next(0.0)
    assert not it.finish(2)
    assert it.cancel(2)
    assert not it.cancel(2)
    assert it.cancel(1)
    assert not it.finish(1)
    assert it.next(0.0) == [3]


def test_continuous_is_due_at_once_or_never() -> None:
    it = continuous(1)
    assert it.next_deadline() == math.inf
    add(it, 1, now=5.0)
    assert it.next_deadline() == 5.0
    add(it, 2, now=6.0)
    it.next(6.0)
    assert it.next_deadline() == math.inf


def test_static_waits_for_its_window() -> None:
    it = Batcher(4, 0, 0.5, True)
    add(it, 1, now=10.0)
    add(it, 2, priority=1, now=10.25)
    assert it.next_deadline() == 10.5
    assert it.next(10.25) == []
    assert it.next(10.5) == [2, 1]


def test_static_starts_when_full() -> None:
    by_size, by_tokens = Batcher(2, 0, 0.5, True), Batcher(9, 20, 0.5, True)
    for it in (by_size, by_tokens):
        add(it, 1, 2, now=10.0)
        assert it.next_deadline() <= 10.0
        assert it.next(10.0) == [1, 2]


def test_static_batch_is_closed_until_it_is_empty() -> None:
    it = Batcher(2, 0, 0.0, True)
    add(it, 1)
    assert it.next(0.0) == [1]
    add(it, 2)
    assert it.next(9.0) == []
    assert it.next_deadline() == math.inf
    it.finish(1)
    assert it.next(9.0) == [2]


def test_cancelling_the_oldest_moves_the_window() -> None:
    it = Batcher(4, 0, 0.5, True)
    add(it, 1, now=1.0)
    add(it, 2, now=2.0)
    it.cancel(1)
    assert it.next_deadline() == 2.5


def test_misuse_raises() -> None:
    it = continuous()
    add(it, 1)
    with pytest.raises(ValueError, match="already"):
        add(it, 1)
    with pytest.raises(ValueError, match="max_batch_size"):
        Batcher(0, 0, 0.0, False)
    with pytest.raises(ValueError, match="max_batch_tokens"):
        Batcher(1, -1, 0.0, False)
    with pytest.raises(ValueError, match="max_delay_s"):
        Batcher(1, 0, math.nan, False)
