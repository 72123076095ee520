"""Random event sequences give the same answers from the native core and from its twins."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twin_batcher import TwinBatcher
from twins import TwinScheduler

from smmf_core.native import _batcher, _scheduler

MODELS, WORKERS, KEYS, TENANTS = 3, 5, 40, 3

models = st.integers(0, MODELS - 1)
workers = st.integers(0, WORKERS - 1)
keys = st.integers(0, KEYS - 1)
tenants = st.integers(0, TENANTS - 1)
slots = st.integers(0, 4)
weights = st.sampled_from([0.5, 1.0, 2.0, 3.0])
latest = st.one_of(st.just(math.inf), st.floats(0, 60))
request = st.tuples(
    keys, models, tenants, st.integers(-1, 1), st.integers(1, 6), st.integers(0, 30),
    st.one_of(st.just(math.inf), st.floats(0, 60)),
)  # fmt: skip

scheduler_events = st.one_of(
    st.tuples(
        st.just("set_model"), models, st.integers(0, 2), st.integers(0, 9), st.integers(0, 99)
    ),
    st.tuples(st.just("remove_model"), models),
    st.tuples(st.just("set_tenant"), tenants, weights),
    st.tuples(st.just("worker_up"), workers, models, slots, weights),
    st.tuples(st.just("worker_set"), workers, slots, weights, st.booleans()),
    st.tuples(st.just("worker_down"), workers),
    st.tuples(st.just("submit"), request, latest),
    st.tuples(st.just("submit"), request, latest),
    st.tuples(st.just("submit"), request, latest),
    st.tuples(st.just("resubmit"), request, workers, latest),
    st.tuples(st.just("cancel"), keys),
    st.tuples(st.just("finish"), keys),
    st.tuples(st.just("finish"), keys),
    st.tuples(st.just("correct_tokens"), keys, st.integers(0, 30)),
    st.tuples(st.just("set_wait_until"), models, st.floats(0, 60), st.booleans()),
    st.tuples(st.just("poll"), st.floats(0, 1)),
    st.tuples(st.just("poll"), st.floats(0, 1)),
)


class SchedulerPair:
    def __init__(self) -> None:
        self.native, self.twin = _scheduler.Scheduler(), TwinScheduler()
        self.now = 0.0

    def do(self, name: str, *args: Any) -> None:
        if name == "worker_up" and args[0] in self.twin.workers:
            return
        if name == "worker_set" and args[0] not in self.twin.workers:
            return
        if name == "poll":
            self.now += args[0]
            args = (self.now,)
        elif name in ("submit", "resubmit"):
            args = (*args[0], self.now, *args[1:])
        expected = getattr(self.twin, name)(*args)
        assert getattr(self.native, name)(*args) == expected, (name, args)

    def compare(self) -> None:
        native, twin = self.native, self.twin
        assert native.next_deadline() == twin.next_deadline()
        for model in range(MODELS):
            assert native.waiting(model) == twin.waiting(model)
            assert native.oldest(model) == twin.oldest(model)
            assert native.running(model) == twin.running(model)
            assert native.free_slots(model) == twin.free_slots(model)
        for worker in range(WORKERS):
            assert native.in_flight(worker) == twin.in_flight(worker)
        for key in twin.requests:
            assert native.position(key) == twin.position(key)


@settings(max_examples=150, deadline=None)
@given(st.lists(scheduler_events, max_size=80))
def test_scheduler_equals_its_twin(events: list[tuple[Any, ...]]) -> None:
    pair = SchedulerPair()
    for model in range(MODELS - 1):
        pair.do("set_model", model, model, 0, 0)
        pair.do("worker_up", model, model, 3, 1.0)
    for event in events:
        pair.do(*event)
        pair.compare()


@pytest.mark.parametrize("seed", range(8))
def test_scheduler_equals_its_twin_over_long_busy_sequences(seed: int) -> None:
    """Hypothesis likes short sequences; these keep queues long and slots short."""
    rng = random.Random(seed)
    pair = SchedulerPair()
    for model in range(MODELS):
        pair.do("set_model", model, rng.randrange(3), rng.choice([0, 12]), rng.choice([0, 300]))
    for tenant in range(TENANTS):
        pair.do("set_tenant", tenant, rng.choice([0.5, 1.0, 2.0, 3.0]))
    for worker in range(WORKERS):
        pair.do("worker_up", worker, worker % MODELS, rng.randint(1, 4), rng.choice([1.0, 2.0]))
    for key in range(400):
        deadline = math.inf if rng.random() < 0.7 else pair.now + rng.random() * 20
        asked = (key, rng.randrange(MODELS), rng.randrange(TENANTS), rng.choice([0, 0, 0, 1]),
                 rng.choice([1, 1, 1, 2, 6]), rng.randrange(40), deadline)  # fmt: skip
        pair.do("submit", asked)
        pair.do("poll", rng.random())
        running = [k for k, r in pair.twin.requests.items() if r.worker is not None]
        if running and rng.random() < 0.7:
            pair.do("correct_tokens", rng.choice(running), rng.randrange(80))
            pair.do("finish", rng.choice(running))
        if pair.twin.requests and rng.random() < 0.15:
            pair.do("cancel", rng.choice(list(pair.twin.requests)))
        if rng.random() < 0.05:
            only_later = rng.random() < 0.5
            pair.do(
                "set_wait_until", rng.randrange(MODELS), pair.now + 20 * rng.random(), only_later
            )
        if rng.random() < 0.03:
            worker = rng.randrange(WORKERS)
            for lost in fail(pair, worker):
                pair.do("resubmit", (lost, worker % MODELS, 0, 0, 1, 5, math.inf), worker)
            pair.do("worker_up", worker, worker % MODELS, rng.randint(1, 4), 1.0)
    pair.compare()


def fail(pair: SchedulerPair, worker: int) -> list[int]:
    lost = [r.key for r in pair.twin.requests.values() if r.worker and r.worker.id == worker]
    pair.do("worker_down", worker)
    return lost


batcher_events = st.one_of(
    st.tuples(st.just("add"), keys, st.integers(1, 6), st.integers(0, 30), st.integers(-1, 1)),
    st.tuples(st.just("cancel"), keys),
    st.tuples(st.just("finish"), keys),
    st.tuples(st.just("next"), st.floats(0, 1)),
)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 8), st.integers(0, 60), st.floats(0, 2), st.booleans(),
    st.lists(batcher_events, max_size=80),
)  # fmt: skip
def test_batcher_equals_its_twin(
    size: int, tokens: int, max_delay_s: float, static: bool, events: list[tuple[Any, ...]]
) -> None:
    native = _batcher.Batcher(size, tokens, max_delay_s, static)
    twin = TwinBatcher(size, tokens, max_delay_s, static)
    now = 0.0
    for name, *args in events:
        if name == "add":
            if args[0] in twin.items:
                continue
            args.append(now)
        elif name == "next":
            now += args[0]
            args = [now]
        assert getattr(native, name)(*args) == getattr(twin, name)(*args), (name, args)
        assert native.next_deadline() == twin.next_deadline()
        assert (native.waiting, native.running) == (twin.waiting, twin.running)
