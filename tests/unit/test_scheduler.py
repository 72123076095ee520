"""The scheduler's rules, one by one, from the outside; parity covers their combinations."""

from __future__ import annotations

import math

import pytest

from smmf_core.native import _scheduler
from smmf_core.native._scheduler import Scheduler

MODEL = 7


def scheduler(
    strategy: int = _scheduler.ROUND_ROBIN, max_waiting: int = 0, max_tokens: int = 0
) -> Scheduler:
    made = Scheduler()
    made.set_model(MODEL, strategy, max_waiting, max_tokens)
    return made


def submit(
    to: Scheduler, key: int, *, tenant: int = 0, priority: int = 0, width: int = 1,
    tokens: int = 10, deadline: float = math.inf,
) -> int:  # fmt: skip
    return to.submit(key, MODEL, tenant, priority, width, tokens, deadline, 0.0)


def resubmit(to: Scheduler, key: int, *, avoid: int, priority: int = 0) -> int:
    return to.resubmit(key, MODEL, 0, priority, 1, 10, math.inf, 0.0, avoid)


def placed(by: Scheduler, now: float = 0.0) -> list[tuple[int, int]]:
    return by.poll(now)[0]


def served(by: Scheduler) -> list[int]:
    """Keys in the order in which a single slot serves them."""
    order: list[int] = []
    while assigned := placed(by):
        order += [key for key, _ in assigned]
        by.finish(order[-1])
    return order


# --- order ---


def test_higher_priority_first_then_arrival() -> None:
    it = scheduler()
    for key, priority in [(1, 0), (2, 1), (3, -1), (4, 1)]:
        submit(it, key, priority=priority)
    assert [it.position(key) for key in (1, 2, 3, 4)] == [2, 0, 3, 1]
    it.worker_up(0, MODEL, 1, 1.0)
    assert served(it) == [2, 4, 1, 3]


def test_tenants_share_by_weight_whoever_came_first() -> None:
    it = scheduler()
    it.set_tenant(2, 2.0)
    for key in range(100, 130):
        submit(it, key, tenant=1)
    for key in range(200, 230):
        submit(it, key, tenant=2)
    it.worker_up(0, MODEL, 1, 1.0)
    first = served(it)[:30]
    assert sum(key >= 200 for key in first) == 20


def test_a_tenant_pays_for_its_tokens() -> None:
    it = scheduler()
    for key in range(100, 110):
        submit(it, key, tenant=1, tokens=30)
    for key in range(200, 230):
        submit(it, key, tenant=2, tokens=10)
    it.worker_up(0, MODEL, 1, 1.0)
    assert sum(key < 200 for key in served(it)[:20]) == 5


def test_the_real_size_is_charged_once_it_is_known() -> None:
    it = scheduler()
    for key in range(100, 105):
        submit(it, key, tenant=1, tokens=1)
    for key in range(200, 205):
        submit(it, key, tenant=2, tokens=1)
    it.worker_up(0, MODEL, 1, 1.0)
    assert placed(it) == [(100, 0)]
    it.correct_tokens(100, 4)
    it.finish(100)
    assert served(it)[:5] == [200, 201, 202, 203, 101]


def test_a_cancelled_request_costs_its_tenant_nothing() -> None:
    it = scheduler()
    submit(it, 100, tenant=1, tokens=1000)
    submit(it, 101, tenant=1)
    submit(it, 200, tenant=2)
    it.cancel(100)
    it.worker_up(0, MODEL, 1, 1.0)
    assert served(it) == [101, 200]


def test_an_idle_tenant_saves_nothing_up() -> None:
    it = scheduler()
    it.worker_up(0, MODEL, 1, 1.0)
    for key in range(100, 120):
        submit(it, key, tenant=1)
    for key in range(100, 110):
        assert placed(it) == [(key, 0)]
        it.finish(key)
    for key in range(200, 210):
        submit(it, key, tenant=2)
    order = served(it)
    assert sum(key >= 200 for key in order[:10]) == 5


# --- slots ---


def test_a_wide_request_is_not_overtaken() -> None:
    it = scheduler()
    it.worker_up(0, MODEL, 2, 1.0)
    for key, width in [(1, 1), (2, 2), (3, 1)]:
        submit(it, key, width=width)
    assert placed(it) == [(1, 0)]
    it.finish(1)
    assert placed(it) == [(2, 0)]
    it.finish(2)
    assert placed(it) == [(3, 0)]


def test_cancelling_a_wide_head_lets_the_next_run() -> None:
    it = scheduler()
    it.worker_up(0, MODEL, 2, 1.0)
    for key, width in [(1, 1), (2, 2), (3, 1)]:
        submit(it, key, width=width)
    placed(it)
    assert it.cancel(2) == -1
    assert placed(it) == [(3, 0)]


def test_width_is_clamped_to_the_largest_worker() -> None:
    it = scheduler()
    it.worker_up(0, MODEL, 2, 1.0)
    it.worker_up(1, MODEL, 3, 1.0)
    submit(it, 1, width=8)
    assert placed(it) == [(1, 1)]
    assert it.in_flight(1) == 3
    assert it.free_slots(MODEL) == 2
    assert it.finish(1)
    assert not it.finish(1)
    assert it.free_slots(MODEL) == 5


def test_running_counts_requests_and_in_flight_counts_slots() -> None:
    it = scheduler()
    it.worker_up(0, MODEL, 4, 1.0)
    submit(it, 1, width=3)
    placed(it)
    assert (it.running(MODEL), it.in_flight(0)) == (1, 3)


def test_cancel_tells_where_it_ran() -> None:
    it = scheduler()
    it.worker_up(5, MODEL, 1, 1.0)
    submit(it, 1)
    placed(it)
    assert it.cancel(1) == 5
    assert it.cancel(1) == -2
    assert it.free_slots(MODEL) == 1


def test_many_in_one_poll_in_order() -> None:
    it = scheduler()
    for key in range(6):
        submit(it, key)
    it.worker_up(0, MODEL, 2, 1.0)
    it.worker_up(1, MODEL, 2, 1.0)
    assert placed(it) == [(0, 0), (1, 1), (2, 0), (3, 1)]
    assert it.waiting(MODEL) == (2, 20)


# --- placement ---


def test_least_connections_takes_the_most_free_share() -> None:
    it = scheduler(_scheduler.LEAST_CONNECTIONS)
    it.worker_up(0, MODEL, 2, 1.0)
    it.worker_up(1, MODEL, 8, 1.0)
    for key in range(6):
        submit(it, key)
    assert [worker for _, worker in placed(it)] == [0, 1, 1, 1, 1, 0]


def test_weighted_spreads_smoothly() -> None:
    it = scheduler(_scheduler.WEIGHTED)
    it.worker_up(0, MODEL, 20, 5.0)
    it.worker_up(1, MODEL, 20, 1.0)
    it.worker_up(2, MODEL, 20, 1.0)
    for key in range(7):
        submit(it, key)
    assert [worker for _, worker in placed(it)] == [0, 0, 1, 0, 2, 0, 0]


def test_a_worker_that_does_not_accept_gets_nothing_new() -> None:
    it = scheduler()
    it.worker_up(0, MODEL, 1, 1.0)
    it.worker_up(1, MODEL, 1, 1.0)
    it.worker_set(0, 1, 1.0, False)
    submit(it, 1)
    submit(it, 2)
    assert placed(it) == [(1, 1)]
    it.worker_set(0, 1, 1.0, True)
    assert placed(it) == [(2, 0)]


# --- lost workers ---


def test_what_ran_on_a_lost_worker_goes_to_the_front_in_order() -> None:
    it = scheduler()
    it.worker_up(0, MODEL, 2, 1.0)
    for key in range(4):
        submit(it, key)
    placed(it)
    lost = it.worker_down(0)
    assert lost == [0, 1]
    assert it.finish(0) is False
    for key in lost:
        resubmit(it, key, avoid=0)
    it.worker_up(1, MODEL, 3, 1.0)
    assert placed(it) == [(0, 1), (1, 1), (2, 1)]


def test_the_excluded_worker_is_taken_only_when_it_is_alone() -> None:
    it = scheduler()
    it.worker_up(0, MODEL, 4, 1.0)
    it.worker_up(1, MODEL, 1, 1.0)
    resubmit(it, 1, avoid=0)
    resubmit(it, 2, avoid=0)
    assert placed(it) == [(1, 1)]
    assert it.worker_down(1) == [1]
    assert placed(it) == [(2, 0)]


def test_resubmit_knows_no_limits() -> None:
    it = scheduler(max_waiting=1)
    assert submit(it, 1) == _scheduler.OK
    assert submit(it, 2) == _scheduler.QUEUE_FULL
    assert resubmit(it, 2, avoid=0) == _scheduler.OK


# --- limits and refusals ---


def test_limits_count_only_what_finds_no_slot() -> None:
    it = scheduler(max_waiting=1)
    it.worker_up(0, MODEL, 2, 1.0)
    assert [submit(it, key) for key in range(4)] == [0, 0, 0, _scheduler.QUEUE_FULL]


def test_waiting_tokens_are_limited() -> None:
    it = scheduler(max_tokens=25)
    assert [submit(it, key, tokens=10) for key in range(3)] == [0, 0, _scheduler.TOKENS_FULL]
    it.correct_tokens(0, 2)
    assert it.waiting(MODEL) == (2, 12)
    assert submit(it, 2, tokens=10) == _scheduler.OK


def test_unknown_models_and_keys_in_use_are_refused() -> None:
    it = Scheduler()
    assert submit(it, 1) == _scheduler.UNKNOWN_MODEL
    it.set_model(MODEL, 0, 0, 0)
    assert submit(it, 1) == _scheduler.OK
    assert submit(it, 1) == _scheduler.DUPLICATE
    assert resubmit(it, 1, avoid=0) == _scheduler.DUPLICATE


def test_a_removed_model_gives_its_waiting_back_and_lets_the_rest_run() -> None:
    it = scheduler()
    it.worker_up(0, MODEL, 1, 1.0)
    for key, priority in [(1, 9), (2, 0), (3, 5)]:
        submit(it, key, priority=priority)
    assert placed(it) == [(1, 0)]
    assert it.remove_model(MODEL) == [2, 3]
    assert submit(it, 4) == _scheduler.UNKNOWN_MODEL
    assert it.finish(1)
    it.set_model(MODEL, 0, 0, 0)
    submit(it, 4)
    assert placed(it) == [(4, 0)]


def test_misuse_raises() -> None:
    it = scheduler()
    it.worker_up(0, MODEL, 1, 1.0)
    with pytest.raises(ValueError, match="already up"):
        it.worker_up(0, MODEL, 1, 1.0)
    with pytest.raises(ValueError, match="not up"):
        it.worker_set(1, 1, 1.0, True)
    with pytest.raises(ValueError, match="strategy"):
        it.set_model(MODEL, 99, 0, 0)
    with pytest.raises(ValueError, match="tenant's weight"):
        it.set_tenant(0, 0.0)
    with pytest.raises(ValueError, match="worker's weight"):
        it.worker_up(1, MODEL, 1, math.nan)


# --- deadlines ---


def test_deadlines_end_what_waits_earliest_first() -> None:
    it = scheduler()
    assert it.next_deadline() == math.inf
    for key, deadline in [(1, 3.0), (2, 1.0), (3, math.inf), (4, 2.0)]:
        submit(it, key, deadline=deadline)
    assert it.next_deadline() == 1.0
    assert it.poll(0.5) == ([], [])
    assert it.poll(2.0) == ([], [2, 4])
    it.worker_up(0, MODEL, 4, 1.0)
    assert it.poll(3.0) == ([(3, 0)], [1])
    assert it.next_deadline() == math.inf


def test_a_running_request_has_no_deadline() -> None:
    it = scheduler()
    it.worker_up(0, MODEL, 1, 1.0)
    submit(it, 1, deadline=1.0)
    placed(it)
    assert it.next_deadline() == math.inf
    assert it.poll(2.0) == ([], [])


def test_an_expired_wide_head_lets_the_next_run() -> None:
    it = scheduler()
    it.worker_up(0, MODEL, 2, 1.0)
    submit(it, 1)
    placed(it)
    submit(it, 2, width=2, deadline=1.0)
    submit(it, 3)
    assert it.poll(0.0) == ([], [])
    assert it.poll(1.0) == ([(3, 0)], [2])
