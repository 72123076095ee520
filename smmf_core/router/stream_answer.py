"""An HTTP answer that streams: framed and sent natively by the StreamTable.

This file is what happens once per request, or once per event that is not framed natively. Owns the
stream's state; must not queue or place.
"""

from __future__ import annotations

import msgspec

from smmf_core.api.dialect import StreamRenderer, Timed
from smmf_core.api.openai import Parsed
from smmf_core.errors import ApiError
from smmf_core.messages import (
    CHOICE_END,
    DATA,
    REASONING,
    TOKENS,
    TOOL,
    Submit,
    TokenBatch,
    ToolDelta,
    Usage,
)
from smmf_core.router.call import Call, Owner
from smmf_core.router.core import Open
from smmf_core.router.response import Answer

_HEAD = b"content-type: %b\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"
_ID_BYTES = 4
_decode_tokens = msgspec.msgpack.Decoder(TokenBatch).decode
_decode_deltas = msgspec.msgpack.Decoder(list[ToolDelta]).decode


class StreamAnswer(Answer):
    """The sink of one HTTP request that streams.

    States: waiting -> placed -> streaming -> ending (all bytes queued) -> done.
    """

    __slots__ = (
        "_completion", "_has_begun", "_has_head", "_media_type", "_parsed", "close_after",
    )  # fmt: skip
    _renderer: StreamRenderer

    def __init__(
        self, parsed: Parsed, call: Call, renderer: StreamRenderer, owner: Owner, media_type: bytes
    ) -> None:
        super().__init__(call, renderer, owner)
        self._media_type = media_type
        self._parsed = parsed
        self._completion = [0] * parsed.n_choices if parsed.continuous_usage else []
        self._has_head = False  # a former Worker's Admit had it sent
        self._has_begun = False  # what follows the Worker's Admit is with the stream
        self.close_after = False

    # --- from the core ---

    def placed(self, request: Open) -> None:
        """A Worker gets the request: make its stream (again, after a Worker died)."""
        table, connection, parsed = self._table, self._call.connection, self._parsed
        self._count_placed(request)
        key, attempt, now = request.key, request.submit.attempt, request.placed_at
        # its Workers may have died between Admit and the first token, one after the other
        if attempt > 0 and table.emitted(key)[0]:
            self._has_head = True
        self._has_begun = has_head = self._has_head
        renderer = self._renderer
        frame = None if parsed.logprobs or parsed.continuous_usage else renderer.frame
        head = b"" if has_head else connection.head(200, _HEAD % self._media_type + self._headers())
        first = b"" if has_head else renderer.first()
        fd, chunked = connection.fileno, connection.chunked
        table.open(key, attempt, fd, frame, renderer.prefix, head, first, chunked, now)
        if connection.is_paused:  # the head is not out yet: nothing may overtake it
            table.block(key)

    def admitted(self, prompt_tokens: int) -> None:
        self.prompt_tokens = prompt_tokens
        self._call.connection.begin_stream()
        if not self._has_begun:
            self._has_begun = True
            start = self._renderer.admitted(prompt_tokens)
            if start:
                self._table.append(self.key, start, False)

    def finished(self, usage: Usage) -> None:
        if isinstance(self._renderer, Timed):
            self._tell_times(self._renderer, usage)
        self._count(usage, "")
        self._table.append(self.key, self._renderer.tail(usage), True)
        self.ending = True
        self._owner.on_end(self)

    def may_retry(self) -> bool:
        """Not after tokens, nor after what may be the prompt's echo, which is no token."""
        assert self.request is not None
        was_sent, tokens = self._table.emitted(self.key)
        submit = self.request.submit
        has_echo = isinstance(submit, Submit) and submit.echo_prompt
        return tokens == 0 and not (was_sent and has_echo)

    # --- from the shell ---

    def on_event(self, kind: int, choice: int, count: int, payload: bytes) -> None:
        """A record of a stream that is not framed natively: logprobs, continuous usage, calls of
        tools and what follows them."""
        renderer, usage = self._renderer, self._usage(choice, count if kind != CHOICE_END else 0)
        if kind == TOKENS:
            text = payload[count * _ID_BYTES :].decode("utf-8", "replace")
            body = renderer.tokens(choice, TokenBatch(text, [], []), usage) if text else b""
        elif kind == REASONING:
            text = payload[count * _ID_BYTES :].decode("utf-8", "replace")
            body = renderer.reasoning(choice, text, usage)
        elif kind == TOOL:
            body = renderer.tool_deltas(choice, _decode_deltas(payload), usage)
        elif kind == DATA:
            body = renderer.tokens(choice, _decode_tokens(payload), usage)
        else:
            if payload:
                renderer.stopped_by(payload.decode("utf-8", "replace"))
            body = renderer.choice_end(choice, count, usage)
        if body:
            self._table.append(self.key, body, False)

    def keep_alive(self) -> None:
        no_op = self._renderer.keepalive()
        if no_op:
            self._table.append(self.key, no_op, False)

    def complete(self) -> None:
        super().complete()
        self._call.connection.end_stream(self.close_after)

    # --- inside ---

    def _refuse(self, error: ApiError) -> None:
        """A real status while nothing was sent, else one error event and the end."""
        request = self.request
        if request is None or not (self._has_head or self._table.emitted(request.key)[0]):
            super()._refuse(error)
            return
        self._table.append(request.key, self._renderer.error_event(error), True)
        self.ending = self.close_after = True

    def _usage(self, choice: int, count: int) -> Usage | None:
        if not self._completion:
            return None
        self._completion[choice] += count
        return Usage(self.prompt_tokens, sum(self._completion))
