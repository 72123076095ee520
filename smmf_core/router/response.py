"""An HTTP answer that is sent whole: the sink that turns a request's events into its bytes.

Owns the answer's state, and what is counted and logged at its end; must not queue or place.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

from smmf_core.api.dialect import Timed, Times
from smmf_core.errors import ApiError
from smmf_core.messages import REASONS, Result, Usage, Vectors
from smmf_core.router.call import JSON, Call, Connection, End, Owner
from smmf_core.router.core import Open

_ASIDE_BYTES = 1 << 16  # of vectors: more take the loop's time for longer than a thread's start
_CLIENT_GONE = 499  # nginx's: nothing was sent


class WholeRenderer(Protocol):
    """What makes the body of an answer that is sent whole."""

    def response(self, result: Any, usage: Usage) -> bytes: ...


class Answer:
    """The sink of one HTTP request whose answer is sent whole, whatever it asked for.

    States: waiting -> placed -> done.
    """

    __slots__ = (
        "_call",
        "_metrics",
        "_owner",
        "_renderer",
        "_result",
        "_table",
        "done",
        "ending",
        "prompt_tokens",
        "request",
    )
    _renderer: WholeRenderer

    def __init__(self, call: Call, renderer: WholeRenderer, owner: Owner) -> None:
        assert call.metrics is not None
        self._call = call
        self._renderer = renderer
        self._metrics = call.metrics
        self._owner = owner
        self._table = owner.table
        self._result: Any = None
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
        result = self._result
        if result is None:
            raise ValueError("the Worker finished without a result")
        if isinstance(self._renderer, Timed):
            self._tell_times(self._renderer, usage)
        if type(result) is Vectors and len(result.data) > _ASIDE_BYTES:
            self._count(usage, "")
            self._table.close(self.key)
            self._owner.render_aside(self, partial(self._renderer.response, result, usage))
            return
        body = self._renderer.response(result, usage)
        finish = REASONS[result.choices[0].reason] if type(result) is Result else ""
        self._count(usage, finish)
        self._table.close(self.key)
        self.rendered(body)

    def rendered(self, body: bytes) -> None:
        """Send the whole answer."""
        self.done = True
        self._call.connection.respond(200, JSON + self._headers(), body)
        self._owner.on_end(self)

    def failed(self, error: ApiError) -> None:
        self._count_partial(self._call.status(error), error.code)
        self._refuse(error)
        self._owner.on_end(self)

    def may_retry(self) -> bool:
        return True

    # --- from the shell ---

    def on_event(self, kind: int, choice: int, count: int, payload: bytes) -> None:
        """A record of a stream: a whole answer has none."""

    def keep_alive(self) -> None:
        """The client has heard nothing for long, and its Worker makes progress: a whole answer
        cannot say so."""

    def unsent(self, rest: bytes) -> None:
        """What the native send could not send; empty: the connection is broken."""
        connection = self._call.connection
        if not rest:
            connection.abort()
            return
        connection.write_raw(rest)
        if connection.is_paused:
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
        self._count_partial(_CLIENT_GONE, reason)
        if self.request is not None:
            self._table.close(self.request.key)

    # --- inside ---

    def _refuse(self, error: ApiError) -> None:
        if self.request is not None:
            self._table.close(self.request.key)
        self.done = True
        self._call.refuse(self._headers(), error)

    def _headers(self) -> bytes:
        """The lines of any answer, with who gives it."""
        request = self.request
        instance = request.instance if request is not None else ""
        return self._call.timed(self._owner.now, instance)

    def _tell_times(self, renderer: Timed, usage: Usage) -> None:
        """To a renderer that shows them. Of tokens that came together nobody knows when the first
        was there: the prompt is taken to have had the time of one more."""
        request = self.request
        assert request is not None
        now, placed_at = self._owner.now, request.placed_at
        received_at, first = self._call.received_at, self._table.stats(self.key)[2]
        if not first:
            first = placed_at + (now - placed_at) / (usage.completion + 1)
        times = now - received_at, placed_at - received_at, first - placed_at, now - first
        renderer.times = Times(*times)

    def _count_placed(self, request: Open) -> None:
        if request.submit.attempt:
            self._metrics.failovers += 1
        else:
            self._metrics.queue.record(request.placed_at - request.accepted_at)

    def _count_partial(self, status: int, finish: str) -> None:
        """Tokens of an answer that did not come to its end were read and generated all the same."""
        call, request, metrics = self._call, self.request, self._metrics
        metrics.requests[call.route, status] += 1
        generated, first = 0, 0.0
        if request is not None:
            generated = self._table.emitted(request.key)[1]
            if generated:
                first = self._table.stats(request.key)[2]
            metrics.prompt_tokens += self.prompt_tokens
            metrics.generation_tokens += generated
        usage = Usage(self.prompt_tokens, generated)
        self._owner.record(call, request, End(self._owner.now, status, finish, usage, first))

    def _count(self, usage: Usage, finish: str) -> None:
        """The end as it should be. Of a stream the table knows why it `finish`ed."""
        call, request, metrics = self._call, self.request, self._metrics
        assert request is not None
        metrics.requests[call.route, 200] += 1
        metrics.prompt_tokens += usage.prompt
        metrics.generation_tokens += usage.completion
        _, admitted, first, last, tokens, reason = self._table.stats(request.key)
        accepted, ended = request.accepted_at, max(admitted, last)
        metrics.request.record(ended - accepted)
        if tokens:  # they come one by one in a stream only
            metrics.first_token.record(first - accepted)
            if tokens > 1:
                metrics.per_token.record((last - first) / (tokens - 1))
        if reason >= 0:
            finish = REASONS[reason]
        self._owner.record(call, request, End(ended, 200, finish, usage, first))


def refuse(connection: Connection, headers: bytes, error: ApiError) -> None:
    """An error as a whole answer."""
    connection.respond(error.status, JSON + error.header_lines() + headers, error.body())
