"""Which texts make a step: alike in length, bounded, in turn, without starvation."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from smmf_core.worker.embed_batcher import EmbedBatcher, Place


def batcher(
    max_texts: int = 4, max_tokens: int = 0, delay_s: float | None = None, bucket: int = 16
) -> EmbedBatcher:
    return EmbedBatcher(max_texts, max_tokens, delay_s, bucket)


def drained(own: EmbedBatcher, now: float = 0.0) -> list[list[Place]]:
    steps = []
    while places := own.next(now):
        steps.append(places)
    return steps


def test_nothing_waits() -> None:
    own = batcher()
    assert own.next(0.0) == []
    assert own.next_deadline() == math.inf


def test_texts_of_several_requests_share_a_step() -> None:
    own = batcher()
    for serial in range(1, 4):
        own.add(serial, [10], 0, float(serial))
    assert own.next_deadline() == 1.0
    assert sorted(own.next(3.0)) == [(1, 0), (2, 0), (3, 0)]
    assert (own.waiting, own.next_deadline()) == (0, math.inf)


def test_a_step_holds_so_many_texts() -> None:
    own = batcher(max_texts=4)
    own.add(1, [5] * 10, 0, 0.0)
    assert [len(step) for step in drained(own)] == [4, 4, 2]


def test_a_step_holds_so_many_tokens_with_padding() -> None:
    own = batcher(max_texts=100, max_tokens=64)
    own.add(1, [16, 16, 1, 1, 1, 1], 0, 0.0)
    assert drained(own) == [[(1, 1), (1, 0), (1, 5), (1, 4)], [(1, 3), (1, 2)]]


def test_one_text_above_the_limit_goes_alone() -> None:
    own = batcher(max_tokens=64)
    own.add(1, [100, 100], 0, 0.0)
    assert [len(step) for step in drained(own)] == [1, 1]


def test_short_and_long_texts_do_not_share_a_step() -> None:
    own = batcher(max_texts=8)
    own.add(1, [3, 240, 4, 210, 5], 0, 0.0)
    assert drained(own) == [[(1, 1), (1, 3)], [(1, 4), (1, 2), (1, 0)]]


def test_wide_buckets_of_an_engine_with_cheap_padding() -> None:
    own = batcher(max_texts=8, bucket=256)
    own.add(1, [3, 240, 4, 210, 5], 0, 0.0)
    assert len(own.next(0.0)) == 5


def test_buckets_grow_with_the_length() -> None:
    """A quarter of padding costs a long text no more than it costs a short one."""
    own = batcher(max_texts=8)
    own.add(1, [1000, 1040], 0, 0.0)
    own.add(2, [100, 140], 0, 0.0)
    steps = drained(own)
    assert [(1, 1), (1, 0)] in steps
    assert len(steps) == 3


def test_one_text_does_not_wait_behind_a_request_of_thousands() -> None:
    own = batcher(max_texts=8)
    own.add(1, [10] * 2048, 0, 0.0)
    for _ in range(5):
        own.next(0.0)
    own.add(2, [10], 0, 1.0)
    assert (2, 0) in own.next(1.0)


def test_one_text_of_another_length_waits_one_step_at_most() -> None:
    own = batcher(max_texts=8)
    own.add(1, [10] * 2048, 0, 0.0)
    own.next(0.0)
    own.add(2, [300], 0, 1.0)
    assert (2, 0) in own.next(1.0) + own.next(1.0)


def test_two_long_requests_go_on_together() -> None:
    own = batcher(max_texts=8)
    own.add(1, [10] * 100, 0, 0.0)
    own.add(2, [10] * 100, 0, 0.0)
    for _ in range(5):
        assert Counter(serial for serial, _ in own.next(0.0)) == {1: 4, 2: 4}


def test_an_endless_row_of_single_texts_does_not_starve_a_long_request() -> None:
    own = batcher(max_texts=8)
    own.add(1, [10] * 64, 0, 0.0)
    serial = 2
    for _ in range(24):  # more single texts wait than a step holds, at any time
        own.add(serial, [10], 0, 0.0)
        serial += 1
    left = 64
    for _ in range(1000):
        for owner, _ in own.next(0.0):
            if owner == 1:
                left -= 1
                continue
            own.add(serial, [10], 0, 0.0)
            serial += 1
        if not left:
            break
    assert left == 0


def test_higher_priority_goes_first() -> None:
    own = batcher(max_texts=2)
    own.add(1, [10, 10], 0, 0.0)
    own.add(2, [10, 10], 5, 1.0)
    assert drained(own, 1.0) == [[(2, 1), (2, 0)], [(1, 1), (1, 0)]]


def test_a_cancelled_request_has_no_more_steps() -> None:
    own = batcher(max_texts=2)
    own.add(1, [10] * 6, 0, 0.0)
    own.add(2, [10], 0, 0.0)
    own.next(0.0)
    own.cancel(1)
    own.cancel(1)  # it may have ended already
    assert {serial for step in drained(own) for serial, _ in step} <= {2}
    assert own.waiting == 0


def test_static_batching_waits_for_its_window() -> None:
    own = batcher(max_texts=4, delay_s=0.1)
    own.add(1, [10], 0, 1.0)
    own.add(2, [10], 0, 1.05)
    assert own.next_deadline() == 1.1
    assert own.next(1.09) == []
    assert len(own.next(1.1)) == 2


def test_static_batching_does_not_wait_when_it_is_full() -> None:
    own = batcher(max_texts=4, delay_s=0.1)
    own.add(1, [10, 10, 10, 10], 0, 1.0)
    assert len(own.next(1.0)) == 4
    own = batcher(max_texts=100, max_tokens=50, delay_s=0.1)
    own.add(1, [30, 30], 0, 1.0)
    assert len(own.next(1.0)) == 1


@pytest.mark.parametrize("seed", range(20))
def test_every_text_is_served_once(seed: int) -> None:
    """Random requests, cancels and steps: bounds hold, and nothing is lost or served twice."""
    rng = random.Random(seed)
    own = batcher(max_texts=8, max_tokens=400)
    lengths: dict[int, list[int]] = {}
    seen: Counter[Place] = Counter()
    cancelled: set[int] = set()
    for serial in range(1, 60):
        lengths[serial] = [rng.randint(1, 300) for _ in range(rng.choice((1, 1, 1, 5, 40)))]
        own.add(serial, lengths[serial], rng.choice((0, 0, 1)), float(serial))
        if rng.random() < 0.1:
            own.cancel(serial)
            cancelled.add(serial)
        for _ in range(rng.randint(0, 3)):
            seen.update(check(own.next(float(serial)), lengths))
    for step in drained(own, 100.0):
        seen.update(check(step, lengths))
    expected = {(s, n) for s in lengths.keys() - cancelled for n in range(len(lengths[s]))}
    assert set(seen) == expected
    assert set(seen.values()) == {1}
    assert own.waiting == 0


def check(step: list[Place], lengths: dict[int, list[int]]) -> list[Place]:
    sizes = [lengths[serial][number] for serial, number in step]
    assert len(step) <= 8
    assert len(step) < 2 or max(sizes) * len(step) <= 400
    assert not sizes or max(sizes) - min(sizes) < max(16, max(sizes) // 4 + 1)
    return step
