"""From a Worker's answer to the bytes of Ollama's API: a line of JSON an event, or one object.

Owns both forms, a chat's and a generation's; must not know HTTP. Calls of tools are told whole.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from smmf_core.api.dialect import Timed
from smmf_core.api.ollama.calls import CallCollector, whole_calls
from smmf_core.api.ollama.errors import ERRORS
from smmf_core.api.openai import Parsed
from smmf_core.api.openai.logprobs import LogprobWriter, ends_broken
from smmf_core.errors import ApiError
from smmf_core.messages import (
    LENGTH,
    REASONS,
    STOP,
    TOOL_CALLS,
    Result,
    TokenBatch,
    TokenLogprob,
    ToolDelta,
    Usage,
)
from smmf_core.native._frames import Frame

_NS = 10**9
_MORE = b'"done":false}\n'
_encode = msgspec.json.encode


class Form:
    """What a chat's events and a generation's differ in."""

    def __init__(self, before: bytes, text: bytes, after: bytes) -> None:
        self._before, self._text, self._after = before, text, after
        thought = before + text + b'"","thinking":"'
        close = b'"' + after
        self.frame = Frame(
            before + text + b'"', close, b"", _MORE, (b"",) * 4, False, (thought, b"", close), False
        )

    def said(self, text: str, thinking: str, calls: list[dict[str, Any]]) -> bytes:
        """The fields of what the model says."""
        parts = [self._before, self._text, _encode(text)]
        if thinking:
            parts += b',"thinking":', _encode(thinking)
        if calls:
            parts += b',"tool_calls":', _encode(calls)
        return b"".join([*parts, self._after])

    def empty(self, model: str, created: bytes, done: str) -> bytes:
        """The answer to a request that asks for nothing."""
        head = b'{"model":%b,"created_at":"%b",' % (_encode(model), created)
        return b'%b%b"done":true,"done_reason":"%b"}' % (
            head, self.said("", "", []), done.encode(),
        )  # fmt: skip


CHAT = Form(b'"message":{"role":"assistant",', b'"content":', b"},")
GENERATE = Form(b"", b'"response":', b",")


class Renderer(Timed):
    """One request's answer as bytes. `created` in seconds; `model` is what the client called it."""

    __slots__ = ("_calls", "_reason", "_writer", "frame", "prefix")
    _form: Form

    def __init__(
        self, parsed: Parsed, unique_id: str, created: int, model: str, fingerprint: str
    ) -> None:
        super().__init__()
        self.prefix = b'{"model":%b,"created_at":"%b",' % (_encode(model), created_at(created))
        self.frame = self._form.frame
        self._writer: LogprobWriter | None = None
        self._restart()

    # --- streaming ---

    def first(self) -> bytes:
        self._restart()
        return b""

    def admitted(self, prompt_tokens: int) -> bytes:
        return b""

    def tokens(self, choice: int, batch: TokenBatch, usage: Usage | None) -> bytes:
        """Text with its tokens' logprobs, or after a call."""
        said = self._form.said(batch.text, "", [])
        calls = self._flush_calls() if batch.text else b""
        return b"%b%b%b%b%b" % (
            calls,
            self.prefix, said, self._logprobs(batch.logprobs, ends_broken(batch.text)), _MORE,
        )  # fmt: skip

    def reasoning(self, choice: int, text: str, usage: Usage | None) -> bytes:
        return self._flush_calls() + self._line("", text, []) if text else b""

    def tool_deltas(self, choice: int, deltas: list[ToolDelta], usage: Usage | None) -> bytes:
        """A line for each call that has become whole: another one has begun."""
        calls = self._calls.add(deltas)
        return self._line("", "", calls) if calls else b""

    def stopped_by(self, stop: str) -> None:
        """Not told: the reason is `stop` either way."""

    def choice_end(self, choice: int, reason: int, usage: Usage | None) -> bytes:
        """Why it ended is told with the usage, in `tail`."""
        self._reason = reason
        return self._flush_calls()

    def tail(self, usage: Usage) -> bytes:
        said = self._form.said("", "", [])
        return b"%b%b%b\n" % (self.prefix, said, self._end(self._reason, usage))

    def error_event(self, error: ApiError) -> bytes:
        """The end of a stream that failed after its first byte."""
        return ERRORS.body(error, "") + b"\n"

    def keepalive(self) -> bytes:
        """A line that says nothing."""
        return self._line("", "", [])

    # --- not streaming ---

    def response(self, result: Result, usage: Usage) -> bytes:
        """The whole answer as one JSON object."""
        (choice,) = result.choices
        calls = whole_calls(choice.tool_calls)
        return b"%b%b%b%b" % (
            self.prefix,
            self._form.said(choice.text, choice.reasoning, calls),
            self._logprobs(choice.logprobs or [], True),
            self._end(choice.reason, usage),
        )

    # --- inside ---

    def _restart(self) -> None:
        """Nothing of the answer has been sent."""
        self._calls = CallCollector()
        self._reason = LENGTH

    def _flush_calls(self) -> bytes:
        calls = self._calls.flush()
        return self._line("", "", calls) if calls else b""

    def _line(self, text: str, thinking: str, calls: list[dict[str, Any]]) -> bytes:
        return b"%b%b%b" % (self.prefix, self._form.said(text, thinking, calls), _MORE)

    def _logprobs(self, described: list[TokenLogprob], is_last: bool) -> bytes:
        if not described:
            return b""
        self._writer = self._writer or LogprobWriter()
        return b'"logprobs":%b,' % _encode(self._writer.entries(described, is_last))

    def _end(self, reason: int, usage: Usage) -> bytes:
        times = self.times
        return (
            b'"done":true,"done_reason":"%b","total_duration":%d,"load_duration":%d,'
            b'"prompt_eval_count":%d,"prompt_eval_duration":%d,"eval_count":%d,'
            b'"eval_duration":%d}'
        ) % (
            REASONS[STOP if reason == TOOL_CALLS else reason].encode(),
            ns(times.total_s),
            ns(times.wait_s),
            usage.prompt,
            ns(times.prompt_s),
            usage.completion,
            ns(times.tokens_s),
        )


class ChatRenderer(Renderer):
    __slots__ = ()
    _form = CHAT


class GenerateRenderer(Renderer):
    __slots__ = ()
    _form = GENERATE


def ns(seconds: float) -> int:
    """Never zero: clients divide by it."""
    return max(1, int(seconds * _NS))


def created_at(seconds: int) -> bytes:
    """RFC 3339, with the fraction that some clients insist on."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000000Z").encode()
