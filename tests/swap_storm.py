"""Clients that pick models at random, in simulated time, over the pure swap core."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

from smmf_core.controller import swap

TICK_S = 0.05
REPORT_S = 1.0  # what the Controller knows of requests is so old at most
WAIT_LIMIT_S = 60.0


@dataclass(slots=True)
class Client:
    model: int = 0
    asked_at: float = 0.0
    done_at: float = 0.0  # 0: waits
    last: int = -1
    runs: int = 0  # how often it changed the model: so many loads it needs at least


class Storm:
    """Memory for one of the models. A client asks again as soon as it is answered."""

    def __init__(
        self, models: int, clients: int, load_s: float, answer_s: float, seed: int
    ) -> None:
        self._draw = random.Random(seed)
        self._models = models
        self._clients = [Client() for _ in range(clients)]
        self._load_s = load_s
        self._answer_s = answer_s
        self._loaded: int | None = None
        self._state = swap.READY
        self._since = 0.0
        self._known: list[tuple[int, float, int]] = []  # by model, as last reported
        self.faithful = 0  # so many clients only ask for model 0
        self.loads = 0
        self.served: Counter[int] = Counter()
        self.longest_wait_s = 0.0
        self.loading_share = 0.0

    @property
    def fewest_loads(self) -> int:
        """No order of loads can do with less: the client that changed its model most often."""
        return max(client.runs for client in self._clients)

    def run(self, seconds: float) -> None:
        for number, client in enumerate(self._clients):
            self._ask(client, number, 0.0)
        loading, reported = 0, -REPORT_S
        for step in range(int(seconds / TICK_S)):
            now = step * TICK_S
            self._serve(now)
            if now - reported >= REPORT_S:
                reported, self._known = now, self._count(now)
            self._steer(now)
            loading += self._state == swap.LOADING
        self.loading_share = loading * TICK_S / seconds

    def _ask(self, client: Client, number: int, now: float) -> None:
        client.model = 0 if number < self.faithful else self._draw.randrange(self._models)
        client.runs += client.model != client.last
        client.last = client.model
        client.asked_at, client.done_at = now, 0.0

    def _serve(self, now: float) -> None:
        if self._state == swap.LOADING and now - self._since >= self._load_s:
            self._state, self._since = swap.READY, now
        for number, client in enumerate(self._clients):
            if client.done_at and now >= client.done_at:
                self.served[client.model] += 1
                self._ask(client, number, now)
            if not client.done_at and self._state == swap.READY and client.model == self._loaded:
                self.longest_wait_s = max(self.longest_wait_s, now - client.asked_at)
                client.done_at = now + self._answer_s * self._draw.uniform(0.5, 1.5)
        if self._state == swap.DRAINING and not any(client.done_at for client in self._clients):
            self._loaded = None

    def _count(self, now: float) -> list[tuple[int, float, int]]:
        """(waiting, oldest wait, running) of each model."""
        rows = []
        for model in range(self._models):
            own = [client for client in self._clients if client.model == model]
            waits = [now - client.asked_at for client in own if not client.done_at]
            rows.append((len(waits), max(waits, default=0.0), len(own) - len(waits)))
        return rows

    def _steer(self, now: float) -> None:
        holdings = []
        if self._loaded is not None:
            waiting, _, running = self._known[self._loaded]
            holdings.append(
                swap.Holding(
                    instance=str(self._loaded), model=self._loaded, devices=("cpu",), need_bytes=1,
                    state=self._state, is_busy=bool(waiting or running), ready_at=self._since,
                    load_s=self._load_s,
                )
            )  # fmt: skip
        wants = [
            swap.Want(
                instance=str(model), model=model, need_bytes=1, waiting=waiting, waited_s=waited,
                load_s=self._load_s,
            )
            for model, (waiting, waited, _) in enumerate(self._known)
            if waiting and model != self._loaded
        ]  # fmt: skip
        device = swap.Device("cpu", 1)
        for want in swap.order(wants)[:1]:
            answer = swap.plan(want, [device], holdings, now, "lru", len(wants), WAIT_LIMIT_S)
            if isinstance(answer, swap.Evict):
                self._state = swap.DRAINING
            elif isinstance(answer, swap.Fits):
                self._loaded, self._state, self._since = want.model, swap.LOADING, now
                self.loads += 1
