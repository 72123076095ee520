"""What every core of a Worker is to its loop, links and control, whatever the model's task.

Owns the shape of a core and the record of a failure; must not know a task.
"""

from __future__ import annotations

from typing import Any, Protocol

from smmf_core.errors import ApiError
from smmf_core.messages import FAIL, FAILURE_BYTES, Failure, Record, Request, encode

RouterKey = tuple[int, int]
"""(router id, epoch): a restarted Router is another one."""


class Spec(Protocol):
    """What all models have."""

    @property
    def context_length(self) -> int: ...
    @property
    def device(self) -> str: ...
    @property
    def capabilities(self) -> list[str]: ...


class Core(Protocol):
    """A Worker's decisions about requests of one kind, `takes`. Records leave through `out`."""

    out: dict[RouterKey, list[Record]]
    tokens: int  # so far: generated, or read by a model that generates none

    @property
    def takes(self) -> type[Request]: ...
    @property
    def spec(self) -> Spec: ...
    @property
    def running(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    def __len__(self) -> int: ...
    def add_router(self, router: RouterKey) -> None: ...
    def on_submit(self, router: RouterKey, submit: Any, now: float) -> None: ...
    def on_cancel(self, router: RouterKey, key: int, attempt: int) -> None: ...
    def on_router_gone(self, router: RouterKey) -> None: ...
    def drop(self, router: RouterKey, key: int) -> None: ...


def failure(submit: Request, error: Exception) -> Record:
    """The FAIL of one request, its message cut to what a terminal record holds."""
    if not isinstance(error, ApiError):
        error = ApiError("internal_error", f"The engine failed on this request: {error}")
    message = error.message
    payload = encode(Failure(error.code, message, error.param))
    while len(payload) > FAILURE_BYTES:
        message = message[: len(message) * 3 // 4]
        payload = encode(Failure(error.code, message + "...", error.param))
    return (FAIL, submit.key, submit.attempt, 0, 0, payload)
