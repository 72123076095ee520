"""One request through the Scheduler, one step of the Batcher: does it grow with what waits?"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import pytest

from smmf_core.native._batcher import Batcher
from smmf_core.native._scheduler import LEAST_CONNECTIONS, Scheduler

SLOTS = 64  # all taken throughout: a request enters when another ends
TENANTS = 20
REQUESTS = 1000  # per round


class BusyModel:
    """One model whose slots are taken, and so many requests that wait for them."""

    def __init__(self, waiting: int, models: int) -> None:
        self.scheduler = Scheduler()
        for model in range(models):
            self.scheduler.set_model(model, LEAST_CONNECTIONS, 0, 0)
            self.scheduler.worker_up(model, model, SLOTS, 1.0)
        self.key = 0
        for _ in range(SLOTS):
            self.submit()
        self.running = deque(key for key, _ in self.scheduler.poll(0.0)[0])
        for _ in range(waiting):
            self.submit()

    def submit(self) -> None:
        self.key += 1
        deadline = 1e6 + self.key
        self.scheduler.submit(self.key, 0, self.key % TENANTS, 0, 1, 100, deadline, 0.0)

    def turn(self) -> None:
        for _ in range(REQUESTS):
            self.submit()
            self.scheduler.finish(self.running.popleft())
            self.running.append(self.scheduler.poll(0.0)[0][0][0])


@pytest.mark.parametrize(
    ("waiting", "models"), [(0, 1), (0, 1000), (1000, 1), (100_000, 1), (100_000, 1000)]
)
def test_submit_poll_finish_1000_requests(benchmark: Any, waiting: int, models: int) -> None:
    busy = BusyModel(waiting, models)
    benchmark(busy.turn)
    assert busy.scheduler.waiting(0)[0] == waiting


@pytest.mark.parametrize("waiting", [0, 100_000])
def test_poll_with_nothing_to_place(benchmark: Any, waiting: int) -> None:
    busy = BusyModel(waiting, 1)
    assert benchmark(busy.scheduler.poll, 0.0) == ([], [])


@pytest.mark.parametrize("waiting", [0, 100_000])
def test_batcher_1000_steps_one_leaves_one_joins(benchmark: Any, waiting: int) -> None:
    batcher = Batcher(SLOTS, 0, 0.0, False)
    for key in range(SLOTS + waiting):
        batcher.add(key, 1, 100, 0, 0.0)
    running = deque(batcher.next(0.0))

    def steps() -> None:
        first = running[-1] + waiting + 1
        for key in range(first, first + REQUESTS):
            batcher.add(key, 1, 100, 0, 0.0)
            batcher.finish(running.popleft())
            running.extend(batcher.next(0.0))

    benchmark(steps)
    assert batcher.waiting == waiting
    assert batcher.next_deadline() == math.inf
