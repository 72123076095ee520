"""From a Worker's answer to the bytes of Messages, streaming or not.

An answer is blocks: thoughts, text, calls of tools, each of them begun, filled and ended by events
of a stream. Owns which block is open; must not know HTTP.
"""

from __future__ import annotations

from typing import Any

import msgspec

from smmf_core.api.anthropic.errors import ERRORS
from smmf_core.api.openai import Parsed
from smmf_core.errors import ApiError
from smmf_core.messages import LENGTH, Choice, Result, TokenBatch, ToolDelta, Usage

_SIGNATURE = "smmf"  # clients send a thought back only with one; nothing reads it
_TEXT, _THINKING, _TOOL_USE = "text", "thinking", "tool_use"
_PING = b'event: ping\ndata: {"type":"ping"}\n\n'
_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_DELTA = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
    b'"delta":{"type":"%b","%b":%b}}\n\n'
)
_BLOCK_STOP = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n'
_encode = msgspec.json.encode


class Renderer:
    """One request's answer as bytes. `unique_id` is ASCII without quotes.

    A stream's events come in the order of the records, so they are all made here: `frame` is None.
    """

    frame = None
    prefix = b""
    __slots__ = (
        "_has_calls",
        "_head",
        "_index",
        "_open",
        "_reason",
        "_request_id",
        "_stop",
        "_stops",
    )

    def __init__(
        self, parsed: Parsed, unique_id: str, created: int, model: str, fingerprint: str
    ) -> None:
        self._request_id = parsed.submit.request_id
        self._stops = parsed.submit.sampling.stop
        self._head: dict[str, Any] = {
            "id": f"msg_{unique_id}", "type": "message", "role": "assistant", "model": model,
        }  # fmt: skip
        self._has_calls = False
        self._restart()

    # --- streaming ---

    def first(self) -> bytes:
        """Nothing: `message_start` tells the prompt's tokens, which are not known yet."""
        self._restart()
        return b""

    def admitted(self, prompt_tokens: int) -> bytes:
        usage = _usage(Usage(prompt_tokens, 0))
        message = {**self._head, "content": [], **_ending_as(None), "usage": usage}
        return _event("message_start", {"message": message}) + _PING

    def tokens(self, choice: int, batch: TokenBatch, usage: Usage | None) -> bytes:
        return self._fill(_TEXT, b"text_delta", b"text", batch.text)

    def reasoning(self, choice: int, text: str, usage: Usage | None) -> bytes:
        return self._fill(_THINKING, b"thinking_delta", b"thinking", text)

    def tool_deltas(self, choice: int, deltas: list[ToolDelta], usage: Usage | None) -> bytes:
        """What is new of calls: a call begins with its id."""
        parts = []
        for delta in deltas:
            if delta.id:
                parts.append(self._close())
                block = {"type": _TOOL_USE, "id": delta.id, "name": delta.name, "input": {}}
                parts.append(self._begin(_TOOL_USE, block))
                self._has_calls = True
            if delta.arguments:
                arguments = _encode(delta.arguments)
                parts.append(
                    _DELTA % (self._index, b"input_json_delta", b"partial_json", arguments)
                )
        return b"".join(parts)

    def stopped_by(self, stop: str) -> None:
        self._stop = stop

    def choice_end(self, choice: int, reason: int, usage: Usage | None) -> bytes:
        """Why it ended is told with the usage, in `tail`."""
        self._reason = reason
        return self._close()

    def tail(self, usage: Usage) -> bytes:
        delta = self._ending(self._reason, self._stop, self._has_calls)
        return _event("message_delta", {"delta": delta, "usage": _usage(usage)}) + _STOP

    def error_event(self, error: ApiError) -> bytes:
        """The end of a stream that failed after its first byte."""
        return b"event: error\ndata: %b\n\n" % ERRORS.body(error, self._request_id)

    def keepalive(self) -> bytes:
        return _PING

    # --- not streaming ---

    def response(self, result: Result, usage: Usage) -> bytes:
        """The whole answer as one JSON object."""
        (choice,) = result.choices
        return _encode(
            {
                **self._head,
                "content": _blocks(choice),
                **self._ending(choice.reason, choice.stop, bool(choice.tool_calls)),
                "usage": _usage(usage),
            }
        )

    # --- inside ---

    def _restart(self) -> None:
        """Nothing of the answer has been sent."""
        self._index = -1  # of the last block
        self._open = ""  # its kind, while it is open
        self._has_calls = False
        self._reason = LENGTH
        self._stop = ""

    def _fill(self, kind: str, delta: bytes, field: bytes, text: str) -> bytes:
        if not text:
            return b""
        head = b""
        if self._open != kind:
            block = {"type": kind, kind: ""}
            if kind == _THINKING:
                block["signature"] = ""
            head = self._close() + self._begin(kind, block)
        return head + _DELTA % (self._index, delta, field, _encode(text))

    def _begin(self, kind: str, block: dict[str, Any]) -> bytes:
        self._index += 1
        self._open = kind
        return _event("content_block_start", {"index": self._index, "content_block": block})

    def _close(self) -> bytes:
        kind, self._open = self._open, ""
        if not kind:
            return b""
        end = _BLOCK_STOP % self._index
        if kind != _THINKING:
            return end
        return _DELTA % (self._index, b"signature_delta", b"signature", _encode(_SIGNATURE)) + end

    def _ending(self, reason: int, stop: str, has_calls: bool) -> dict[str, Any]:
        """1 it was cut; 2 it waits for a tool; 3 it said a stop sequence; 4 it had said all."""
        if reason == LENGTH:
            return _ending_as("max_tokens")
        if has_calls:
            return _ending_as("tool_use")
        if stop and stop in self._stops:
            return _ending_as("stop_sequence", stop)
        return _ending_as("end_turn")


def _ending_as(reason: str | None, stop: str | None = None) -> dict[str, Any]:
    return {"stop_reason": reason, "stop_sequence": stop, "stop_details": None}


def _event(kind: str, fields: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), _encode({"type": kind, **fields}))


def _blocks(choice: Choice) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if choice.reasoning:
        thought = {"type": _THINKING, "thinking": choice.reasoning, "signature": _SIGNATURE}
        blocks.append(thought)
    if choice.text:
        blocks.append({"type": _TEXT, "text": choice.text})
    for call in choice.tool_calls:
        given = _object(call.arguments)
        blocks.append({"type": _TOOL_USE, "id": call.id, "name": call.name, "input": given})
    return blocks


def _object(arguments: str) -> dict[str, Any]:
    """A call's input; empty where it was cut, or is no JSON object."""
    try:
        found = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _usage(usage: Usage) -> dict[str, Any]:
    """Tokens from a cache are not among the input's."""
    return {
        "input_tokens": usage.prompt - usage.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.completion,
        "output_tokens_details": {"thinking_tokens": usage.reasoning},
        "service_tier": "standard",
    }
