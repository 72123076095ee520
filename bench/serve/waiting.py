"""What one more request costs the Router's core while others wait: CPU, in this process.

100,000 waiting clients would need more ports than a loopback address has, so the core is driven
directly: the real RouterCore and Scheduler, with effects that do nothing.
"""

from __future__ import annotations

import gc
import time
from typing import Any

from smmf_core import control_messages as cm
from smmf_core import messages as m
from smmf_core.config import Timeouts
from smmf_core.errors import ApiError
from smmf_core.router.core import Open, RouterCore

_ROUNDS = 20_000
_SLOTS = 16


class _Effects:
    def __init__(self) -> None:
        self.placed: list[int] = []

    def send(self, worker: int, messages: list[m.ToWorker]) -> bool:
        self.placed += [message.key for message in messages]
        return True

    def worker_lost(self, worker: int, reason: str) -> None: ...
    def load_wanted(self, model: int) -> None: ...


class _Sink:
    def placed(self, request: Open) -> None: ...
    def admitted(self, prompt_tokens: int) -> None: ...
    def result(self, result: m.Result) -> None: ...
    def finished(self, usage: m.Usage) -> None: ...
    def failed(self, error: ApiError) -> None: ...
    def may_retry(self) -> bool:
        return True


def _entry() -> cm.ModelEntry:
    return cm.ModelEntry(
        0, "m", [], "generate", "echo", "ready", "", 0, 100, "least_connections", 0, 0, {}, []
    )


def _submit(core: RouterCore, now: float) -> Open:
    prompts: list[str | list[int]] = ["x"]
    submit = m.Submit(0, 0, "r", "m", True, 1, None, prompts, m.Sampling())
    return core.submit(submit, core.fleet.find("m"), _Sink(), 1, 8, 0, None, now)


def _cost_us(waiting: int) -> float:
    """CPU microseconds to accept, place and finish one request, with so many waiting."""
    effects = _Effects()
    core = RouterCore(effects, Timeouts(queue_s=1e6))
    core.fleet.update(cm.Registry(1, [_entry()], [cm.WorkerEntry(0, 1, 0, "m-0", 1.0, True)]))
    core.fleet.attached(0, 1, _SLOTS)
    core.fleet.ready(0, 1)
    for _ in range(waiting + _SLOTS):
        _submit(core, 0.0)
    core.turn(0.0)
    gc.collect()
    gc.freeze()  # as the Router does after its start
    costs = []
    for _ in range(3):
        began = time.process_time()
        for _ in range(_ROUNDS):
            _submit(core, 1.0)
            core.on_finish(effects.placed.pop(), m.Usage(1, 1), 1.0)
            core.turn(1.0)
        costs.append(time.process_time() - began)
    gc.unfreeze()
    return 1e6 * min(costs) / _ROUNDS


def growth_waiting() -> dict[str, Any]:
    costs = {count: _cost_us(count) for count in (1, 100_000)}
    return {
        "us_with_1": costs[1],
        "us_with_100000": costs[100_000],
        "ratio": costs[100_000] / costs[1],
        "errors": {},
    }
