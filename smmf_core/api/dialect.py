"""What a dialect of text generation is to the Router: a reader of bodies and a writer of answers.

Owns the contract only: each dialect is a package of its own, none has its own path to a Worker.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from smmf_core.api.openai import Parsed, Request, Wanted
from smmf_core.errors import ApiError
from smmf_core.messages import Result, TokenBatch, ToolDelta, Usage
from smmf_core.native._frames import Frame


class StreamRenderer(Protocol):
    """One request's answer as bytes. With a `frame` texts and ends are framed natively."""

    @property
    def frame(self) -> Frame | None: ...
    @property
    def prefix(self) -> bytes: ...
    def first(self) -> bytes:
        """The body's beginning, before anything is known; again where nothing was sent."""

    def admitted(self, prompt_tokens: int) -> bytes:
        """What follows `first` once a Worker has taken the request; once per answer."""

    def tokens(self, choice: int, batch: TokenBatch, usage: Usage | None) -> bytes: ...
    def reasoning(self, choice: int, text: str, usage: Usage | None) -> bytes: ...
    def tool_deltas(self, choice: int, deltas: list[ToolDelta], usage: Usage | None) -> bytes: ...
    def stopped_by(self, stop: str) -> None:
        """Which stop string ends the choice whose `choice_end` comes next."""

    def choice_end(self, choice: int, reason: int, usage: Usage | None) -> bytes: ...
    def tail(self, usage: Usage) -> bytes: ...
    def error_event(self, error: ApiError) -> bytes: ...
    def keepalive(self) -> bytes:
        """A whole event that changes nothing, at any place after `admitted`; empty: none."""

    def response(self, result: Result, usage: Usage) -> bytes: ...


class Times(NamedTuple):
    """How long an answer took, in seconds."""

    total_s: float = 0.0  # since the request came
    wait_s: float = 0.0  # until a Worker had it: for the model's load, for a slot
    prompt_s: float = 0.0  # from there to the first token
    tokens_s: float = 0.0  # from there to the last


class Timed:
    """A renderer whose answers tell how long they took: it is told before their end."""

    __slots__ = ("times",)

    def __init__(self) -> None:
        self.times = Times()


class Load(Protocol):
    """What a dialect's `parse` may find: a request that asks nothing of its model but to be loaded,
    or with `keep_alive_s` 0 to be unloaded."""

    model: str
    keep_alive_s: float | None

    def wanted(self, created: int) -> Wanted:
        """A request for a Worker, whose answer tells that the model is loaded."""

    def body(self, model: str, created: int, done: str) -> bytes:
        """The answer. `done`: "load" or "unload"."""


class Dialect(NamedTuple):
    """`renderer` takes the request, an id of its own, the time, the model's name as the client has
    it, and the server's fingerprint."""

    route: str  # as metrics and the access log name it
    parse: Callable[[bytes], Request | Load]
    renderer: Callable[[Parsed, str, int, str, str], StreamRenderer]
    capability: str  # what `auto` looks for
    stream_type: bytes = b"text/event-stream; charset=utf-8"


class ErrorForm(Protocol):
    """How errors look to a dialect's clients."""

    def headers(self, request_id: bytes) -> bytes:
        """Whole lines, of every answer."""

    def status(self, error: ApiError) -> int: ...
    def body(self, error: ApiError, request_id: str) -> bytes: ...
