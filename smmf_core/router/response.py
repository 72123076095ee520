"""One HTTP answer: the sink that turns a request's events into bytes on its connection.

An Answer is sent whole; a StreamAnswer is framed and sent natively by the StreamTable, and this
file handles what happens once per request. Owns the answer's state; must not queue or place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from smmf_core.api.openai import Parsed, Renderer
from smmf_core.errors import ApiError
from smmf_core.messages import (
    CHOICE_END,
    DATA,
    TOKENS,
    Submit,
    TokenBatch,
    Usage,
)
from smmf_core.metrics import ModelMetrics
from smmf_core.native._frames import StreamTable
from smmf_core.router.core import Open

_JSON = (b"content-type", b"application/json")
_SSE = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
_ID_BYTES = 4
_decode_tokens = msgspec.msgpack.Decoder(TokenBatch).decode


class Connection(Protocol):
    """What an answer needs of its HTTP request (http.request.Request)."""

    @property
    def fileno(self) -> int: ...
    @property
    def chunked(self) -> bool: ...
    @property
    def is_paused(self) -> bool: ...
    def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> bytes: ...
    def respond(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None: ...
    def begin_stream(self) -> None: ...
    def write_raw(self, data: bytes) -> None: ...
    def end_stream(self, close: bool) -> None: ...
    def abort(self) -> None: ...


class WholeRenderer(Protocol):
    """What makes the body of an answer that is sent whole."""

    def response(self, result: Any, usage: Usage) -> bytes: ...


class Answer:
    """The sink of one HTTP request whose answer is sent whole, whatever it asked for.

    States: waiting -> placed -> done.
    """

    __slots__ = (
        "_connection",
        "_metrics",
        "_on_end",
        "_renderer",
        "_result",
        "_route",
        "_table",
        "done",
        "ending",
        "headers",
        "prompt_tokens",
        "request",
    )
    _renderer: WholeRenderer

    def __init__(
        self,
        connection: Connection,
        renderer: WholeRenderer,
        table: StreamTable,
        metrics: ModelMetrics,
        headers: list[tuple[bytes, bytes]],
        route: str,
        on_end: Callable[[Answer], None],
    ) -> None:
        self._connection = connection
        self._renderer = renderer
        self._table = table
        self._metrics = metrics
        self._route = route
        self._on_end = on_end
        self._result: Any = None
        self.headers = headers
        self.request: Open | None = None
        self.prompt_tokens = 0
        self.ending = False  # all bytes of a stream are queued
        self.done = False

    @property
    def key(self) -> int:
        assert self.request is not None
        return self.request.key

    # --- from the core ---

    def placed(self, request: Open) -> None:
        """A Worker gets the request (again, after a Worker died)."""
        self._count_placed(request)
        attempt, now = request.submit.attempt, request.placed_at
        self._table.open(request.key, attempt, -1, None, b"", b"", b"", False, now)

    def admitted(self, prompt_tokens: int) -> None:
        self.prompt_tokens = prompt_tokens

    def result(self, result: Any) -> None:
        self._result = result

    def finished(self, usage: Usage) -> None:
        if self._result is None:
            raise ValueError("the Worker finished without a result")
        body = self._renderer.response(self._result, usage)
        self._count(200, usage)
        self._table.close(self.key)
        self.done = True
        self._connection.respond(200, [_JSON, *self.headers], body)
        self._on_end(self)

    def failed(self, error: ApiError) -> None:
        self._count(error.status, None)
        self._count_partial()
        self._refuse(error)
        self._on_end(self)

    def may_retry(self) -> bool:
        return True

    # --- from the shell ---

    def on_event(self, kind: int, choice: int, count: int, payload: bytes) -> None:
        """A record of a stream: a whole answer has none."""

    def unsent(self, rest: bytes) -> None:
        """What the native send could not send; empty: the connection is broken."""
        if not rest:
            self._connection.abort()
            return
        self._connection.write_raw(rest)
        if self._connection.is_paused:
            self._table.block(self.key)
        else:
            self._table.unblock(self.key)

    def complete(self) -> None:
        """All bytes are with the kernel or the transport: the answer is over."""
        self._table.close(self.key)
        self.done = True

    def gone(self, reason: str) -> None:
        """The client went away, or is not worth waiting for."""
        self.done = True
        self._metrics.cancelled[reason] += 1
        self._metrics.requests[self._route, 499] += 1
        self._count_partial()
        if self.request is not None:
            self._table.close(self.request.key)

    # --- inside ---

    def _refuse(self, error: ApiError) -> None:
        if self.request is not None:
            self._table.close(self.request.key)
        self.done = True
        headers = [_JSON, *error.headers(), *self.headers]
        self._connection.respond(error.status, headers, error.body())

    def _count_placed(self, request: Open) -> None:
        if request.submit.attempt:
            self._metrics.failovers += 1
            self.headers.pop()
        else:
            self._metrics.queue.record(request.placed_at - request.accepted_at)
        self.headers.append((b"x-smmf-instance", request.instance.encode()))

    def _count_partial(self) -> None:
        """Tokens of an answer that did not come to its end were read and generated all the same."""
        if self.request is not None:
            self._metrics.prompt_tokens += self.prompt_tokens
            self._metrics.generation_tokens += self._table.emitted(self.key)[1]

    def _count(self, status: int, usage: Usage | None) -> None:
        metrics = self._metrics
        metrics.requests[self._route, status] += 1
        if usage is None or self.request is None:
            return
        metrics.prompt_tokens += usage.prompt
        metrics.generation_tokens += usage.completion
        _, admitted, first, last, tokens = self._table.stats(self.key)
        accepted = self.request.accepted_at
        metrics.request.record(max(admitted, last) - accepted)
        if tokens:  # they come one by one in a stream only
            metrics.first_token.record(first - accepted)
            if tokens > 1:
                metrics.per_token.record((last - first) / (tokens - 1))


class StreamAnswer(Answer):
    """The sink of one HTTP request that streams.

    States: waiting -> placed -> streaming -> ending (all bytes queued) -> done.
    """

    __slots__ = ("_completion", "_parsed", "close_after")
    _renderer: Renderer

    def __init__(
        self,
        parsed: Parsed,
        connection: Connection,
        renderer: Renderer,
        table: StreamTable,
        metrics: ModelMetrics,
        headers: list[tuple[bytes, bytes]],
        route: str,
        on_end: Callable[[Answer], None],
    ) -> None:
        super().__init__(connection, renderer, table, metrics, headers, route, on_end)
        self._parsed = parsed
        self._completion = [0] * parsed.n_choices if parsed.continuous_usage else []
        self.close_after = False

    # --- from the core ---

    def placed(self, request: Open) -> None:
        """A Worker gets the request: make its stream (again, after a Worker died)."""
        table, connection, parsed = self._table, self._connection, self._parsed
        self._count_placed(request)
        key, attempt, now = request.key, request.submit.attempt, request.placed_at
        # its Worker may have died between Admit and the first token
        has_head = attempt > 0 and table.emitted(key)[0]
        renderer = self._renderer
        frame = None if parsed.logprobs or parsed.continuous_usage else renderer.frame
        head = b"" if has_head else connection.head(200, _SSE + self.headers)
        first = b"" if has_head else renderer.first()
        fd, chunked = connection.fileno, connection.chunked
        table.open(key, attempt, fd, frame, renderer.prefix, head, first, chunked, now)
        if connection.is_paused:  # the head is not out yet: nothing may overtake it
            table.block(key)

    def admitted(self, prompt_tokens: int) -> None:
        self.prompt_tokens = prompt_tokens
        self._connection.begin_stream()

    def finished(self, usage: Usage) -> None:
        self._count(200, usage)
        self._table.append(self.key, self._renderer.tail(usage), True)
        self.ending = True
        self._on_end(self)

    def may_retry(self) -> bool:
        """Not after tokens, nor after what may be the prompt's echo, which is no token."""
        assert self.request is not None
        was_sent, tokens = self._table.emitted(self.key)
        submit = self.request.submit
        has_echo = isinstance(submit, Submit) and submit.echo_prompt
        return tokens == 0 and not (was_sent and has_echo)

    # --- from the shell ---

    def on_event(self, kind: int, choice: int, count: int, payload: bytes) -> None:
        """A record of a stream that is not framed natively: logprobs, continuous usage."""
        renderer, usage = self._renderer, self._usage(choice, count if kind != CHOICE_END else 0)
        if kind == TOKENS:
            text = payload[count * _ID_BYTES :].decode("utf-8", "replace")
            body = renderer.tokens(choice, TokenBatch(text, [], []), usage) if text else b""
        elif kind == DATA:
            body = renderer.tokens(choice, _decode_tokens(payload), usage)
        else:
            body = renderer.choice_end(choice, count, usage)
        if body:
            self._table.append(self.key, body, False)

    def complete(self) -> None:
        super().complete()
        self._connection.end_stream(self.close_after)

    # --- inside ---

    def _refuse(self, error: ApiError) -> None:
        """A real status while nothing was sent, else one error event and the end."""
        request = self.request
        if request is None or not self._table.emitted(request.key)[0]:
            super()._refuse(error)
            return
        self._table.append(request.key, self._renderer.error_event(error), True)
        self.ending = self.close_after = True

    def _usage(self, choice: int, count: int) -> Usage | None:
        if not self._completion:
            return None
        self._completion[choice] += count
        return Usage(self.prompt_tokens, sum(self._completion))
