"""A RouterCore with recording effects, and Workers that are up or down as the test says."""

from __future__ import annotations

from smmf_core import control_messages as cm
from smmf_core import messages as m
from smmf_core.config import Timeouts
from smmf_core.errors import ApiError
from smmf_core.router.core import Open, RouterCore


class Effects:
    """Records what the core has done; `unreachable` workers take nothing."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, m.ToWorker]] = []
        self.lost: list[int] = []
        self.wanted: list[int] = []
        self.unreachable: set[int] = set()

    def send(self, worker: int, messages: list[m.ToWorker]) -> bool:
        if worker in self.unreachable:
            return False
        self.sent += [(worker, message) for message in messages]
        return True

    def worker_lost(self, worker: int, reason: str) -> None:
        self.lost.append(worker)

    def load_wanted(self, model: int) -> None:
        self.wanted.append(model)

    def submits(self, worker: int | None = None) -> list[int]:
        return [s.key for w, s in self.sent if isinstance(s, m.Submit) and worker in (None, w)]

    def cancels(self) -> list[tuple[int, int]]:
        return [(w, c.key) for w, c in self.sent if isinstance(c, m.Cancel)]


class Sink:
    def __init__(self) -> None:
        self.ends: list[str] = []
        self.error: ApiError | None = None
        self.placements = 0
        self.retryable = True

    def placed(self, request: Open) -> None:
        self.placements += 1

    def admitted(self, prompt_tokens: int) -> None: ...
    def result(self, result: m.Result) -> None: ...

    def finished(self, usage: m.Usage) -> None:
        self.ends.append("finished")

    def failed(self, error: ApiError) -> None:
        self.ends.append(error.code)
        self.error = error

    def may_retry(self) -> bool:
        return self.retryable


class Rig:
    def __init__(self, workers: int = 1, slots: int = 1, **limits: int) -> None:
        self.effects = Effects()
        timeouts = Timeouts(queue_s=10, load_wait_s=5)
        self.core = RouterCore(self.effects, timeouts, limits.get("max_open", 0))
        self.sinks: dict[int, Sink] = {}
        self.slots = slots
        self.limits = limits
        self.incarnations = dict.fromkeys(range(workers), 1)
        self.registry()
        for worker in range(workers):
            self.up(worker)

    def registry(
        self, state: str = "ready", reason: str = "", online: bool = True, retry_in_s: float = 0.0
    ) -> None:
        model = cm.ModelEntry(
            index=0, name="m", aliases=["alias"], task="generate", backend="echo", state=state,
            reason=reason, created=1, context_length=100, strategy="least_connections",
            max_queue=self.limits.get("max_queue", 0), max_queue_tokens=0, defaults={},
            capabilities=[], retry_in_s=retry_in_s,
        )  # fmt: skip
        workers = [
            cm.WorkerEntry(w, i, 0, f"m-{w}", 1.0, online) for w, i in self.incarnations.items()
        ]
        self.core.on_registry(cm.Registry(1, [model], workers))

    def up(self, worker: int) -> None:
        incarnation = self.incarnations[worker]
        self.core.fleet.attached(worker, incarnation, self.slots)
        self.core.fleet.ready(worker, incarnation)

    def down(self, worker: int, now: float) -> None:
        self.core.on_worker_down(worker, self.core.fleet.workers[worker].incarnation, now)

    def restart(self, worker: int) -> None:
        self.incarnations[worker] += 1
        self.registry()
        self.up(worker)

    def submit(self, now: float = 0.0, width: int = 1, timeout_s: float | None = None) -> Open:
        submit = m.Submit(
            key=0, attempt=0, request_id="r", model="m", stream=True, n=width, messages=None,
            prompts=["x"], sampling=m.Sampling(),
        )  # fmt: skip
        sink = Sink()
        model = self.core.fleet.find("alias")
        request = self.core.submit(submit, model, sink, width, 1, 0, timeout_s, now)
        self.sinks[request.key] = sink
        return request

    def ends(self, request: Open) -> list[str]:
        """The request's terminal events."""
        return self.sinks[request.key].ends
