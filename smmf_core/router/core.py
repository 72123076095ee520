"""What a Router does with requests: queue, place, follow, place again, end exactly once.

Pure: time is a parameter, acts go through Effects. Owns all open requests and the Scheduler; must
not know HTTP, ZeroMQ or rings.
"""

from __future__ import annotations

import heapq
import math
from typing import Protocol

from smmf_core.config import Timeouts
from smmf_core.control_messages import ModelLoad, Registry
from smmf_core.errors import ApiError
from smmf_core.messages import (
    Cancel,
    Failure,
    Request,
    Submit,
    ToWorker,
    Usage,
    Whole,
)
from smmf_core.native import _scheduler
from smmf_core.native._scheduler import Scheduler
from smmf_core.router.fleet import ON_DEMAND, Fleet, Model
from smmf_core.router.loading import still_loading
from smmf_core.router.retry_after import ServiceRate
from smmf_core.router.told import told

MAX_ATTEMPTS = 3  # a request that was open on so many dying Workers is taken for their killer
_LOAD_WANTED_S = 1.0  # how often the Controller is asked again for a model that nobody loads
_ENDED_DEADLINES = 1024  # deadlines of ended requests that may be kept


class Sink(Protocol):
    """Where one request's answer goes; exactly one of `finished` and `failed` ends it."""

    def placed(self, request: Open) -> None: ...
    def admitted(self, prompt_tokens: int) -> None: ...
    def result(self, result: Whole) -> None: ...
    def finished(self, usage: Usage) -> None: ...
    def failed(self, error: ApiError) -> None: ...
    def may_retry(self) -> bool:
        """Whether the request may be placed again: nothing of its answer has been sent."""


class Effects(Protocol):
    """What the core has done by its shell."""

    def send(self, worker: int, messages: list[ToWorker]) -> bool: ...
    def worker_lost(self, worker: int, reason: str) -> None: ...
    def load_wanted(self, model: int) -> None: ...


class Open:
    """One open request, from acceptance to its one end."""

    __slots__ = (
        "accepted_at",
        "admitted",
        "deadline",
        "has_own_time",
        "instance",
        "key",
        "model",
        "placed_at",
        "sink",
        "submit",
        "tenant",
        "tokens",
        "width",
        "worker",
    )

    def __init__(
        self, key: int, model: Model, submit: Request, sink: Sink, width: int, tokens: int
    ) -> None:
        self.key = key
        self.model = model
        self.submit = submit
        self.sink = sink
        self.width = width
        self.tokens = tokens
        self.tenant = 0
        self.worker = -1
        self.instance = ""
        self.admitted = False
        self.accepted_at = 0.0
        self.placed_at = 0.0
        self.deadline = math.inf
        self.has_own_time = False  # the client said how long it waits

    def end(self) -> Sink:
        """Who is to be told of the one end. They let go of each other: requests make no cycles."""
        sink = self.sink
        del self.sink
        return sink


class RouterCore:
    """The Router's decisions. The shell calls `submit`, `cancel`, the `on_x` events, and `turn`
    once per loop turn in which something happened."""

    def __init__(self, effects: Effects, timeouts: Timeouts, max_open: int = 0) -> None:
        self._effects = effects
        self._timeouts = timeouts
        self._max_open = max_open  # requests of all models, waiting or running; 0: no limit
        self.scheduler = Scheduler()
        self.fleet = Fleet(self.scheduler)
        self.open: dict[int, Open] = {}
        self._rate = ServiceRate()
        self._next_key = 1
        self._deadlines: list[tuple[float, int]] = []
        self._loads: dict[Model, float] = {}  # waited for, and when the Controller was last asked

    # --- requests ---

    def submit(
        self, submit: Request, model: Model, sink: Sink, width: int, tokens: int, tenant: int,
        timeout_s: float | None, now: float,
    ) -> Open:  # fmt: skip
        """Accept a request and queue it. Raises ApiError `queue_full`, with Retry-After.

        `width`: its slots, one a sequence. `tokens`: an estimate of the prompt's.
        """
        if self._max_open and len(self.open) >= self._max_open:
            raise self._queue_full(model)
        key = self._next_key
        self._next_key += 1
        request = Open(key, model, submit, sink, width, tokens)
        request.tenant, request.accepted_at = tenant, now
        submit.key = key
        total_s = timeout_s or self._timeouts.total_s
        if total_s:
            request.has_own_time = timeout_s is not None
            request.deadline = now + total_s
            self._add_deadline(request.deadline, key)
        status = self.scheduler.submit(
            key, model.index, tenant, submit.priority, width, tokens,
            self._wait_until(request, now), now, request.deadline,
        )  # fmt: skip
        if status != _scheduler.OK:
            raise self._queue_full(model)
        model.accepted += 1
        if not model.is_loaded:
            self._want(model, now)
        self.open[key] = request
        return request

    def cancel(self, key: int) -> bool:
        """The client is gone: give back the slots, tell the Worker. False if it had ended."""
        return self._cancel(key) is not None

    def turn(self, now: float) -> None:
        """Place what can be placed, one frame per Worker; end what waited too long."""
        if self.fleet.turned:
            self._begin_waits(now)
        assignments, expired = self.scheduler.poll(now)
        frames: dict[int, list[ToWorker]] = {}
        for key, worker in assignments:
            request = self.open[key]
            request.worker, request.placed_at, request.admitted = worker, now, False
            request.instance = self.fleet.workers[worker].instance
            request.sink.placed(request)
            frames.setdefault(worker, []).append(request.submit)
        unreachable = [w for w, messages in frames.items() if not self._effects.send(w, messages)]
        for key in expired:
            self._expire(self.open.pop(key), now)
        while self._deadlines and self._deadlines[0][0] <= now:
            self._overdue(heapq.heappop(self._deadlines)[1])
        for worker in unreachable:
            self._effects.worker_lost(worker, "it takes no messages")
            self.on_worker_down(worker, self.fleet.workers[worker].incarnation, now)
        if unreachable:
            self.turn(now)

    # --- loading ---

    def loads(self, now: float) -> list[ModelLoad]:
        """What there is of each model's requests, for the Controller."""
        scheduler, models = self.scheduler, self.fleet.models
        return [
            ModelLoad(
                index,
                scheduler.waiting(index)[0],
                scheduler.running(index),
                models[index].accepted,
                max(0.0, now - scheduler.oldest(index)),
                models[index].keep_alive_s,
                models[index].words,
            )
            for index in self.fleet.used
            if index in models
        ]

    def want_loads(self, now: float) -> None:
        """Ask for the models that requests wait for and nobody loads; call it often."""
        for model in list(self._loads):
            if model.is_loaded or not self.scheduler.waiting(model.index)[0]:
                del self._loads[model]
            elif model.entry.state == ON_DEMAND and now >= self._loads[model] + _LOAD_WANTED_S:
                self._loads[model] = now
                self._effects.load_wanted(model.index)

    def _want(self, model: Model, now: float) -> None:
        """Somebody waits for a model that is not loaded."""
        self.fleet.used.add(model.index)
        if model not in self._loads:
            self._loads[model] = -math.inf
            self.want_loads(now)

    def _begin_waits(self, now: float) -> None:
        """Waiting for a slot and waiting for a load have a time each: as a model turns from one to
        the other, what waits for it gets the other's whole time. A load never shortens a wait."""
        for model in self.fleet.turned:
            timeouts, is_loaded = self._timeouts, model.is_loaded
            until = now + (timeouts.queue_s if is_loaded else timeouts.load_wait_s)
            self.scheduler.set_wait_until(model.index, until, not is_loaded)
            if not is_loaded and self.scheduler.waiting(model.index)[0]:
                self._want(model, now)
        self.fleet.turned.clear()

    # --- from the Controller ---

    def on_registry(self, registry: Registry) -> None:
        """A new version: what waits for a model that is gone or out of service ends, with why."""
        for key in self.fleet.update(registry):
            request = self.open[key]
            error = self.fleet.unavailable(request.model)
            assert error is not None
            self.abort(key, error)

    # --- from the Workers ---

    def on_admit(self, key: int, prompt_tokens: int) -> None:
        request = self.open.get(key)
        if request is not None:
            request.admitted = True
            self.scheduler.correct_tokens(key, prompt_tokens)
            request.sink.admitted(prompt_tokens)

    def on_result(self, key: int, result: Whole) -> None:
        request = self.open.get(key)
        if request is not None:
            request.sink.result(result)

    def on_finish(self, key: int, usage: Usage, now: float) -> None:
        request = self._end(key)
        if request is not None:
            self._rate.ended(request.model.index, now)
            request.end().finished(usage)

    def on_fail(self, key: int, failure: Failure) -> None:
        request = self._end(key)
        if request is not None:
            request.end().failed(told(failure))

    def on_stale(self, key: int) -> None:
        """No record for longer than the time-out. It means nothing while the request waits for
        another Worker, or while its tokens are collected for one answer."""
        request = self.open.get(key)
        if request is None or request.worker < 0:
            return
        streams = isinstance(request.submit, Submit) and request.submit.stream
        if streams or not request.admitted:
            self.abort(key, ApiError("inference_timeout", "The model stopped answering in time."))

    def abort(self, key: int, error: ApiError) -> None:
        """End a request with an error from here, and tell its Worker."""
        sink = self._cancel(key)
        if sink is not None:
            sink.failed(error)

    def on_worker_down(self, worker: int, incarnation: int, now: float) -> None:
        """A Worker died; its ring has been drained. What sent nothing is placed again."""
        for key in self.fleet.down(worker, incarnation):
            self._place_again(self.open[key], worker, now)

    # --- inside ---

    def _place_again(self, request: Open, worker: int, now: float) -> None:
        """1 tokens were sent: a terminal error; 2 it met too many deaths: it is poison;
        3 its time is over; 4 its model is; 5 else it goes to the front of the queue."""
        submit = request.submit
        unavailable = self.fleet.unavailable(request.model)
        if not request.sink.may_retry():
            error = ApiError(
                "worker_lost", f"The worker {request.instance} died while it was answering."
            )
        elif submit.attempt + 1 >= MAX_ATTEMPTS:
            text = (
                f"This request was open on {MAX_ATTEMPTS} workers that died; it is not tried again."
            )
            error = ApiError("poison_request", text)
        elif request.deadline <= now:
            error = ApiError("inference_timeout", "The request's time is over.")
        elif unavailable is not None:
            error = unavailable
        else:
            submit.attempt += 1
            request.worker = -1
            self.scheduler.resubmit(
                request.key, request.model.index, request.tenant, submit.priority, request.width,
                request.tokens, self._wait_until(request, now), now, worker, request.deadline,
            )  # fmt: skip
            if not request.model.is_loaded:
                self._want(request.model, now)
            return
        del self.open[request.key]
        request.end().failed(error)

    def _cancel(self, key: int) -> Sink | None:
        request = self.open.pop(key, None)
        if request is None:
            return None
        worker = self.scheduler.cancel(key)
        if worker >= 0:
            self._effects.send(worker, [Cancel(key, request.submit.attempt)])
        return request.end()

    def _wait_until(self, request: Open, now: float) -> float:
        """When a wait that begins now is over: for a slot, or for a load. For the latter the
        client's own time counts, be it longer than ours."""
        if request.model.is_loaded:
            return min(now + self._timeouts.queue_s, request.deadline)
        if request.has_own_time:
            return request.deadline
        return min(now + self._timeouts.load_wait_s, request.deadline)

    def _end(self, key: int) -> Open | None:
        request = self.open.pop(key, None)
        if request is not None:
            self.scheduler.finish(key)
        return request

    def _expire(self, request: Open, now: float) -> None:
        model = request.model
        if not model.is_loaded:
            error = still_loading(model, now)
        elif request.deadline <= now:
            error = ApiError("queue_timeout", "The request's time ended while it waited.")
        else:
            waited = now - request.accepted_at
            text = f"No replica of '{model.name}' became free within {waited:.0f} s."
            error = ApiError("queue_timeout", text, retry_after_s=self._retry_after(model, now))
        request.end().failed(error)

    def _add_deadline(self, deadline: float, key: int) -> None:
        """Also forgets those of ended requests, once they are the most."""
        if len(self._deadlines) > 2 * len(self.open) + _ENDED_DEADLINES:
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self.open]
            heapq.heapify(self._deadlines)
        heapq.heappush(self._deadlines, (deadline, key))

    def _overdue(self, key: int) -> None:
        request = self.open.get(key)
        if request is not None and request.worker >= 0:
            self.abort(key, ApiError("inference_timeout", "The request's time is over."))

    def _queue_full(self, model: Model) -> ApiError:
        waiting, _ = self.scheduler.waiting(model.index)
        return ApiError(
            "queue_full",
            f"The queue of '{model.name}' is full ({waiting} requests wait).",
            retry_after_s=self._rate.wait_s(model.index, waiting),
        )

    def _retry_after(self, model: Model, now: float) -> float:
        return self._rate.wait_s(model.index, self.scheduler.waiting(model.index)[0])
