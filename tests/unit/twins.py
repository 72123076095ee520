"""Reference twin of the native Scheduler: plain lists, every rule spelled out.

It owns nothing but its answers; it must stay obviously correct and may be slow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

OK, QUEUE_FULL, TOKENS_FULL, UNKNOWN_MODEL, DUPLICATE = range(5)
ROUND_ROBIN, LEAST_CONNECTIONS, WEIGHTED = range(3)


@dataclass(eq=False)
class Request:
    key: int
    model: int
    tenant: int
    priority: int
    width: int
    tokens: int
    deadline: float
    latest: float
    since: float
    arrival: int
    returned: bool
    avoid: int
    worker: Worker | None = None
    taken: int = 0
    account: Account | None = None  # who paid for it


@dataclass(eq=False)
class Worker:
    id: int
    model: int
    slots: int
    weight: float
    accepting: bool = True
    taken: int = 0
    credit: float = 0.0

    @property
    def free(self) -> int:
        return max(self.slots - self.taken, 0) if self.accepting else 0


@dataclass(eq=False)
class Account:
    """One tenant in one priority of one model."""

    finish: float = 0.0
    floor: float = 0.0

    @property
    def start(self) -> float:
        return max(self.floor, self.finish)


@dataclass(eq=False)
class Level:
    """One priority of one model, from its first waiting request until none waits."""

    virtual_time: float = 0.0
    accounts: dict[int, Account] = field(default_factory=dict)


@dataclass(eq=False)
class Model:
    listed: bool = False
    strategy: int = ROUND_ROBIN
    max_waiting: int = 0
    max_tokens: int = 0
    workers: list[Worker] = field(default_factory=list)
    cursor: int = 0
    levels: dict[int, Level] = field(default_factory=dict)


def cost(tokens: int) -> float:
    return float(max(tokens, 1))


class TwinScheduler:
    def __init__(self) -> None:
        self.models: dict[int, Model] = {}
        self.workers: dict[int, Worker] = {}
        self.weights: dict[int, float] = {}
        self.requests: dict[int, Request] = {}  # in order of placement, once they run
        self.arrivals = 0
        self.to_try: list[int] = []  # models, in the order in which they became runnable

    # --- models, tenants, workers ---

    def set_model(self, model: int, strategy: int, max_waiting: int, max_tokens: int) -> None:
        known = self.models.setdefault(model, Model())
        known.listed, known.strategy = True, strategy
        known.max_waiting, known.max_tokens = max_waiting, max_tokens

    def remove_model(self, model: int) -> list[int]:
        keys = sorted((r.arrival, r.key) for r in self.waiting_of(model))
        for _, key in keys:
            self.cancel(key)
        if model in self.models:
            self.models[model].listed = False
            self.drop(model)
        return [key for _, key in keys]

    def drop(self, model: int) -> None:
        known = self.models[model]
        if not known.listed and not known.workers:
            del self.models[model]
            self.to_try = [m for m in self.to_try if m != model]

    def set_tenant(self, tenant: int, weight: float) -> None:
        self.weights[tenant] = weight

    def worker_up(self, worker: int, model: int, slots: int, weight: float) -> None:
        self.workers[worker] = Worker(worker, model, slots, weight)
        self.models.setdefault(model, Model()).workers.append(self.workers[worker])
        self.changed(model)

    def worker_set(self, worker: int, slots: int, weight: float, accepting: bool) -> None:
        known = self.workers[worker]
        known.slots, known.weight, known.accepting = slots, weight, accepting
        self.changed(known.model)

    def worker_down(self, worker: int) -> list[int]:
        known = self.workers.get(worker)
        if known is None:
            return []
        keys = [r.key for r in self.requests.values() if r.worker is known]
        for key in keys:
            self.cancel(key)
        model = self.models[known.model]
        row = model.workers.index(known)
        if row < model.cursor:
            model.cursor -= 1
        del model.workers[row], self.workers[worker]
        self.changed(known.model)
        self.drop(known.model)
        return keys

    # --- requests ---

    def submit(
        self, key: int, model: int, tenant: int, priority: int, width: int,
        tokens: int, deadline: float, now: float, latest: float = math.inf,
    ) -> int:  # fmt: skip
        if key in self.requests:
            return DUPLICATE
        known = self.models.get(model)
        if known is None or not known.listed:
            return UNKNOWN_MODEL
        count, waiting_tokens = self.waiting(model)
        free = self.free_slots(model)
        if count >= free:
            if known.max_waiting and count - free >= known.max_waiting:
                return QUEUE_FULL
            if known.max_tokens and waiting_tokens + tokens > known.max_tokens:
                return TOKENS_FULL
        self.enqueue(key, model, tenant, priority, width, tokens, deadline, latest, now, False, -1)
        return OK

    def resubmit(
        self, key: int, model: int, tenant: int, priority: int, width: int,
        tokens: int, deadline: float, now: float, avoid: int, latest: float = math.inf,
    ) -> int:  # fmt: skip
        if key in self.requests:
            return DUPLICATE
        if model not in self.models or not self.models[model].listed:
            return UNKNOWN_MODEL
        self.enqueue(
            key, model, tenant, priority, width, tokens, deadline, latest, now, True, avoid
        )
        return OK

    def enqueue(
        self, key: int, model: int, tenant: int, priority: int, width: int,
        tokens: int, deadline: float, latest: float, now: float, returned: bool, avoid: int,
    ) -> None:  # fmt: skip
        self.arrivals += 1
        request = Request(
            key, model, tenant, priority, width, tokens, deadline, latest, now, self.arrivals,
            returned, avoid,
        )  # fmt: skip
        level = self.models[model].levels.setdefault(priority, Level())
        if not returned:
            account = level.accounts.setdefault(tenant, Account())
            if not self.line(request):
                account.floor = level.virtual_time
        self.requests[key] = request
        self.changed(model)

    def cancel(self, key: int) -> int:
        request = self.requests.get(key)
        if request is None:
            return -2
        answer = -1
        if request.worker is not None:
            request.worker.taken -= request.taken
            answer = request.worker.id
        del self.requests[key]
        self.end_level(request)
        self.changed(request.model)
        return answer

    def finish(self, key: int) -> bool:
        request = self.requests.get(key)
        if request is None or request.worker is None:
            return False
        self.cancel(key)
        return True

    def correct_tokens(self, key: int, tokens: int) -> None:
        request = self.requests.get(key)
        if request is None:
            return
        if request.account is not None:
            difference = cost(tokens) - cost(request.tokens)
            request.account.finish += difference / self.weight(request)
        request.tokens = tokens

    def set_wait_until(self, model: int, until: float, only_later: bool) -> None:
        for request in self.waiting_of(model):
            deadline = min(until, request.latest)
            if not only_later or deadline > request.deadline:
                request.deadline = deadline

    def poll(self, now: float) -> tuple[list[tuple[int, int]], list[int]]:
        late = [r for r in self.requests.values() if r.worker is None and r.deadline <= now]
        expired = [r.key for r in sorted(late, key=lambda r: (r.deadline, r.arrival))]
        for key in expired:
            self.cancel(key)
        assigned = []
        to_try, self.to_try = self.to_try, []
        for model in to_try:
            while (request := self.head(model)) and (worker := self.place(request)):
                assigned.append((request.key, worker.id))
        return assigned, expired

    # --- order ---

    def line(self, request: Request) -> list[Request]:
        """What waits of the same tenant, model and priority, in arrival order."""
        return [
            r for r in self.waiting_of(request.model)
            if (r.tenant, r.priority, r.returned) == (request.tenant, request.priority, False)
        ]  # fmt: skip

    def head(self, model: int) -> Request | None:
        waiting = self.waiting_of(model)
        return min(waiting, key=self.rank) if waiting else None

    def rank(self, request: Request) -> tuple[float, ...]:
        if request.returned:
            return (-request.priority, 0, 0.0, request.arrival)
        start = self.account(request).start
        for other in self.line(request):
            if other is request:
                break
            start += cost(other.tokens) / self.weight(other)
        return (-request.priority, 1, start, request.arrival)

    def position(self, key: int) -> int:
        request = self.requests.get(key)
        if request is None or request.worker is not None:
            return -1
        order = sorted(self.waiting_of(request.model), key=self.rank)
        return order.index(request)

    def account(self, request: Request) -> Account:
        return self.models[request.model].levels[request.priority].accounts[request.tenant]

    def end_level(self, request: Request) -> None:
        others = self.waiting_of(request.model)
        if not any(r.priority == request.priority for r in others):
            self.models[request.model].levels.pop(request.priority, None)

    # --- placement ---

    def place(self, request: Request) -> Worker | None:
        model = self.models[request.model]
        usable = [w for w in model.workers if w.accepting and w.slots > 0]
        candidates = [w for w in usable if w.id != request.avoid] or usable
        if not candidates:
            return None
        width = min(max(request.width, 1), max(w.slots for w in candidates))
        fitting = [w for w in candidates if w.free >= width]
        if not fitting:
            return None
        turn = model.workers[model.cursor :] + model.workers[: model.cursor]
        worker = CHOICES[model.strategy](fitting, [w for w in turn if w in fitting])
        model.cursor = model.workers.index(worker) + 1
        self.run(request, worker, width)
        return worker

    def run(self, request: Request, worker: Worker, width: int) -> None:
        if not request.returned:
            level = self.models[request.model].levels[request.priority]
            request.account = self.account(request)
            level.virtual_time = request.account.floor = request.account.start
            request.account.finish = level.virtual_time + cost(request.tokens) / self.weight(
                request
            )
        worker.taken += width
        request.worker, request.taken = worker, width
        self.requests[request.key] = self.requests.pop(request.key)
        self.end_level(request)

    # --- counts ---

    def waiting_of(self, model: int) -> list[Request]:
        return [r for r in self.requests.values() if r.model == model and r.worker is None]

    def waiting(self, model: int) -> tuple[int, int]:
        waiting = self.waiting_of(model)
        return len(waiting), sum(r.tokens for r in waiting)

    def oldest(self, model: int) -> float:
        return min((r.since for r in self.waiting_of(model)), default=math.inf)

    def running(self, model: int) -> int:
        return sum(r.model == model and r.worker is not None for r in self.requests.values())

    def in_flight(self, worker: int) -> int:
        return self.workers[worker].taken if worker in self.workers else 0

    def free_slots(self, model: int) -> int:
        return sum(w.free for w in self.workers.values() if w.model == model)

    def next_deadline(self) -> float:
        waiting = [r.deadline for r in self.requests.values() if r.worker is None]
        return min(waiting, default=math.inf)

    def weight(self, request: Request) -> float:
        return self.weights.get(request.tenant, 1.0)

    def changed(self, model: int) -> None:
        runnable = self.free_slots(model) > 0 and self.waiting_of(model)
        if runnable and model not in self.to_try:
            self.to_try.append(model)


def smooth(fitting: list[Worker], turn: list[Worker]) -> Worker:
    """Smooth weighted round robin."""
    for worker in fitting:
        worker.credit += worker.weight
    best = max(fitting, key=lambda w: w.credit)
    best.credit -= sum(w.weight for w in fitting)
    return best


CHOICES: dict[int, Callable[[list[Worker], list[Worker]], Worker]] = {
    ROUND_ROBIN: lambda fitting, turn: turn[0],
    LEAST_CONNECTIONS: lambda fitting, turn: max(turn, key=lambda w: w.free / w.slots),
    WEIGHTED: smooth,
}
