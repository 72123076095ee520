"""From a Worker's answer to the bytes of OpenAI's two dialects, streaming or not.

The text events of a plain stream are framed natively from a `Frame` and a prefix; this file makes
those, and what happens once per request. Must not know HTTP.

A chat stream: a role event per choice, text events, a finish event per choice, the usage event if
asked for, `[DONE]`. A completion stream: no role events, and the finish is in the last text event.
"""

from __future__ import annotations

import msgspec

from smmf_core.api.openai.logprobs import LogprobWriter, ends_broken
from smmf_core.api.openai.parse import CHAT, COMPLETION, Parsed
from smmf_core.errors import ApiError
from smmf_core.messages import (
    REASONS,
    Choice,
    Result,
    TokenBatch,
    TokenLogprob,
    ToolDelta,
    Usage,
)
from smmf_core.native._frames import Frame

_DONE = b"data: [DONE]\n\n"
_NULL = b"null"
_QUOTED = [b'"%b"' % reason.encode() for reason in REASONS]
_REASONS = (_QUOTED[0], _QUOTED[1], _QUOTED[2], _QUOTED[3])

_encode = msgspec.json.encode


class _Dialect:
    """What is fixed for all streams of one dialect, with or without `include_usage`.

    An event is prefix, choice index, `text` with the JSON string in it, `close`, `null` or a
    reason, `tail`.
    """

    def __init__(self, dialect: str, include_usage: bool) -> None:
        self.is_chat = dialect == CHAT
        self.tail = b'}],"usage":null}\n\n' if include_usage else b"}]}\n\n"
        if self.is_chat:
            self.id_prefix, self.chunk, self.whole = (
                b"chatcmpl-",
                b"chat.completion.chunk",
                b"chat.completion",
            )
            self.tier = b'"service_tier":"default",'
            self.text, self.empty = b',"delta":{"content":%b},', b',"delta":{},'
            role = b',"delta":{"role":"assistant","content":"","refusal":null},'
            self.role = role + b'"logprobs":null,"finish_reason":null' + self.tail
            self.thought = b',"delta":{"reasoning_content":%b,"reasoning":%b},'
        else:
            self.id_prefix, self.chunk, self.whole = (
                b"cmpl-",
                b"text_completion",
                b"text_completion",
            )
            self.text, self.empty = b',"text":%b,', b',"text":"",'
            self.role = self.thought = self.tier = b""
        before, _, after = self.text.partition(b"%b")
        close = b'"logprobs":null,"finish_reason":'
        self.frame = Frame(
            before + b'"',
            b'"' + after + close,
            self.empty + close,
            self.tail,
            _REASONS,
            not self.is_chat,
            self._around_thought(close),
        )
        self.no_op = self.empty + close + _NULL + self.tail

    def _around_thought(self, close: bytes) -> tuple[bytes, bytes, bytes]:
        """Of a thought's text, which goes into both fields."""
        if not self.thought:
            return b"", b"", b""
        before, again, after = self.thought.split(b"%b")
        return before + b'"', b'"' + again + b'"', b'"' + after + close


_DIALECTS = {(d, usage): _Dialect(d, usage) for d in (CHAT, COMPLETION) for usage in (False, True)}


class Renderer:
    """One request's answer as bytes. `unique_id` is ASCII without quotes; `created` in seconds.

    All chunks carry the same id, created, model and system_fingerprint; `model` is what the client
    called it.
    """

    __slots__ = (
        "_choices",
        "_dialect",
        "_include_usage",
        "_rest",
        "_start",
        "_writers",
        "frame",
        "prefix",
    )

    def __init__(
        self, parsed: Parsed, unique_id: str, created: int, model: str, fingerprint: str
    ) -> None:
        dialect = _DIALECTS[parsed.dialect, parsed.include_usage]
        self._dialect = dialect
        self._choices = parsed.n_choices
        self._include_usage = parsed.include_usage
        self._writers: dict[int, LogprobWriter] = {}
        self._start = b'{"id":"%b%b","object":"' % (dialect.id_prefix, unique_id.encode())
        self._rest = b'","created":%d,"model":%b,"system_fingerprint":%b,"choices":[' % (
            created, _encode(model), _encode(fingerprint),
        )  # fmt: skip
        self.frame = dialect.frame
        self.prefix = b'data: %b%b%b{"index":' % (self._start, dialect.chunk, self._rest)

    # --- streaming ---

    def first(self) -> bytes:
        """The role events of all choices in index order; nothing for completions."""
        role = self._dialect.role
        if not role:
            return b""
        if self._choices == 1:
            return b"%b0%b" % (self.prefix, role)
        return b"".join([b"%b%d%b" % (self.prefix, i, role) for i in range(self._choices)])

    def admitted(self, prompt_tokens: int) -> bytes:
        """Nothing: the prompt's tokens are told at the end."""
        return b""

    def stopped_by(self, stop: str) -> None:
        """Not told: the reason is `stop` either way."""

    def tail(self, usage: Usage) -> bytes:
        """The end of a stream: the usage event if it was asked for, and `[DONE]`."""
        if not self._include_usage:
            return _DONE
        return b'data: %b%b%b],"usage":%b}\n\n%b' % (
            self._start, self._dialect.chunk, self._rest, _usage(usage), _DONE,
        )  # fmt: skip

    def error_event(self, error: ApiError) -> bytes:
        """The end of a stream that failed after its first byte."""
        return b"data: %b\n\n%b" % (error.body(), _DONE)

    def keepalive(self) -> bytes:
        """An event that changes nothing: comments break some clients."""
        return b"%b0%b" % (self.prefix, self._dialect.no_op)

    def tokens(self, choice: int, batch: TokenBatch, usage: Usage | None) -> bytes:
        """A text event with logprobs, or with the usage so far."""
        logprobs = _NULL
        if batch.logprobs:
            logprobs = self._logprobs(choice, batch.logprobs, ends_broken(batch.text))
        return self._event(choice, self._dialect.text % _encode(batch.text), logprobs, _NULL, usage)

    def reasoning(self, choice: int, text: str, usage: Usage | None) -> bytes:
        """An event of a thought that is not framed natively."""
        thought = _encode(text)
        return self._event(choice, self._dialect.thought % (thought, thought), _NULL, _NULL, usage)

    def tool_deltas(self, choice: int, deltas: list[ToolDelta], usage: Usage | None) -> bytes:
        """What is new of calls, an event each: `id`, `type` and `name` come once, first."""
        bodies = [b',"delta":{"tool_calls":[%b]},' % _tool_delta(delta) for delta in deltas]
        return b"".join([self._event(choice, body, _NULL, _NULL, usage) for body in bodies])

    def choice_end(self, choice: int, reason: int, usage: Usage | None) -> bytes:
        """The finish event of one choice."""
        return self._event(choice, self._dialect.empty, _NULL, _REASONS[reason], usage)

    # --- not streaming ---

    def response(self, result: Result, usage: Usage) -> bytes:
        """The whole answer as one JSON object."""
        choices = b",".join([self._choice(i, choice) for i, choice in enumerate(result.choices)])
        return b'%b%b%b%b],%b"usage":%b}' % (
            self._start, self._dialect.whole, self._rest, choices, self._dialect.tier,
            _usage(usage),
        )  # fmt: skip

    # --- inside ---

    def _event(
        self, choice: int, body: bytes, logprobs: bytes, reason: bytes, usage: Usage | None
    ) -> bytes:
        tail = self._dialect.tail if usage is None else b'}],"usage":%b}\n\n' % _usage(usage)
        return b'%b%d%b"logprobs":%b,"finish_reason":%b%b' % (
            self.prefix, choice, body, logprobs, reason, tail,
        )  # fmt: skip

    def _choice(self, index: int, choice: Choice) -> bytes:
        text = _encode(choice.text)
        logprobs = _NULL
        if choice.logprobs is not None:
            logprobs = self._logprobs(index, choice.logprobs, True)
        reason = _REASONS[choice.reason]
        if self._dialect.is_chat:
            more = b""
            if choice.reasoning or choice.tool_calls:
                text, more = _read(choice)
            return (
                b'{"index":%d,"message":{"role":"assistant","content":%b,"refusal":null,'
                b'"annotations":[]%b},"logprobs":%b,"finish_reason":%b}'
            ) % (index, text, more, logprobs, reason)
        return b'{"index":%d,"text":%b,"logprobs":%b,"finish_reason":%b}' % (
            index, text, logprobs, reason,
        )  # fmt: skip

    def _logprobs(self, choice: int, described: list[TokenLogprob], is_last: bool) -> bytes:
        writer = self._writers.get(choice)
        if writer is None:
            writer = self._writers[choice] = LogprobWriter()
        write = writer.chat if self._dialect.is_chat else writer.completion
        return write(described, is_last)


def _tool_delta(delta: ToolDelta) -> bytes:
    arguments = _encode(delta.arguments)
    if not delta.id:
        return b'{"index":%d,"function":{"arguments":%b}}' % (delta.index, arguments)
    return (b'{"index":%d,"id":%b,"type":"function","function":{"name":%b,"arguments":%b}}') % (
        delta.index,
        _encode(delta.id),
        _encode(delta.name),
        arguments,
    )


def _read(choice: Choice) -> tuple[bytes, bytes]:
    """(the content, the message's other fields) of an answer with thoughts or calls."""
    more = b""
    if choice.reasoning:
        thought = _encode(choice.reasoning)
        more = b',"reasoning_content":%b,"reasoning":%b' % (thought, thought)
    if choice.tool_calls:
        calls = [
            b'{"id":%b,"type":"function","function":{"name":%b,"arguments":%b}}'
            % (_encode(call.id), _encode(call.name), _encode(call.arguments))
            for call in choice.tool_calls
        ]
        more += b',"tool_calls":[%b]' % b",".join(calls)
    return _NULL if choice.tool_calls and not choice.text else _encode(choice.text), more


def _usage(usage: Usage) -> bytes:
    return (
        b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,'
        b'"prompt_tokens_details":{"cached_tokens":%d},'
        b'"completion_tokens_details":{"reasoning_tokens":%d}}'
    ) % (
        usage.prompt,
        usage.completion,
        usage.prompt + usage.completion,
        usage.cached,
        usage.reasoning,
    )
