"""What every core of a Worker is to its loop, links and control, whatever the model's task.

Owns the shape of a core, how its requests went, and the record of a failure; must not know a task.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from smmf_core.engines.base import Encoder
from smmf_core.errors import ApiError
from smmf_core.messages import (
    FAIL,
    FAILURE_BYTES,
    Failure,
    Record,
    Request,
    encode,
)

ENGINE_FAILED = "The engine failed on this request: "
_SERVERS_FAULT = 500  # statuses from here on

RouterKey = tuple[int, int]
"""(router id, epoch): a restarted Router is another one."""
OWN: RouterKey = (-1, 0)
"""Where the Worker's own requests come from (probe.py)."""


class Spec(Protocol):
    """What all models have."""

    @property
    def context_length(self) -> int: ...
    @property
    def device(self) -> str: ...
    @property
    def capabilities(self) -> list[str]: ...
    @property
    def tokenizer(self) -> Encoder | None: ...


class OpenFacts(NamedTuple):
    """One open request, for an operator."""

    request_id: str
    router: int
    state: str  # "waiting" | "running"
    arrived_at: float
    prompt_tokens: int
    done: int  # tokens, or texts


class Tally:
    """How requests went. The loop takes `begun` and `failed` out after each step."""

    __slots__ = ("begun", "failed", "faults", "finished")

    def __init__(self) -> None:
        self.finished = 0  # of the Routers': ended well, or by their client's fault
        self.faults = 0
        self.begun: list[float] = []  # when those came that have their first token since
        self.failed: list[tuple[str, Exception]] = []  # (request id, why) since

    def finish(self, router: RouterKey) -> None:
        if router != OWN:
            self.finished += 1

    def fail(self, router: RouterKey, submit: Request, error: Exception) -> Record:
        """The record that ends a request."""
        if isinstance(error, ApiError) and error.status < _SERVERS_FAULT:
            self.finish(router)
        else:
            self.failed.append((submit.request_id, error))
            self.faults += router != OWN
        return failure(submit, error)


class Core(Protocol):
    """A Worker's decisions about requests of one kind, `takes`. Records leave through `out`."""

    out: dict[RouterKey, list[Record]]
    tally: Tally
    tokens: int  # so far: generated, or read by a model that generates none

    @property
    def takes(self) -> type[Request]: ...
    @property
    def spec(self) -> Spec: ...
    @property
    def running(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def dimensions(self) -> int: ...
    def __len__(self) -> int: ...
    def add_router(self, router: RouterKey) -> None: ...
    def on_submit(self, router: RouterKey, submit: Any, now: float) -> None: ...
    def on_cancel(self, router: RouterKey, key: int, attempt: int) -> None: ...
    def on_router_gone(self, router: RouterKey) -> None: ...
    def drop(self, router: RouterKey, key: int) -> None: ...
    def describe(self, limit: int) -> list[OpenFacts]: ...


def failure(submit: Request, error: Exception) -> Record:
    """The FAIL of one request, its message cut to what a terminal record holds."""
    if not isinstance(error, ApiError):
        error = ApiError("internal_error", f"{ENGINE_FAILED}{error}")
    message = error.message
    payload = encode(Failure(error.code, message, error.param))
    while len(payload) > FAILURE_BYTES:
        message = message[: len(message) * 3 // 4]
        payload = encode(Failure(error.code, message + "...", error.param))
    return (FAIL, submit.key, submit.attempt, 0, 0, payload)
