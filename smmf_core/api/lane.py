"""The client library's streams: lines of JSON arrays in place of server-sent events.

Framed natively, as OpenAI's are; whole answers are OpenAI's own. Owns how a line looks
(lane_messages.Line); must not know sockets.
"""

from __future__ import annotations

import msgspec

from smmf_core.api.openai import Parsed, Renderer
from smmf_core.api.openai.logprobs import ends_broken
from smmf_core.errors import ApiError
from smmf_core.lane_messages import CALLS, ERROR, TEXT, THOUGHT, USAGE
from smmf_core.messages import REASONS, TokenBatch, ToolDelta, Usage
from smmf_core.native._frames import Frame

_encode = msgspec.json.encode
_NULL = b"null"
_TAIL = b"]\n"
_QUOTED = [b'"%b"' % reason.encode() for reason in REASONS]
_TEXT_OPEN, _THOUGHT_OPEN = b',%d,"' % TEXT, b',%d,"' % THOUGHT
_FRAME = Frame(
    _TEXT_OPEN,
    b'",',
    _TEXT_OPEN + b'",',
    _TAIL,
    (_QUOTED[0], _QUOTED[1], _QUOTED[2], _QUOTED[3]),
    False,
    (_THOUGHT_OPEN, b"", b'",'),
)


class LaneRenderer(Renderer):
    """One request's answer for the client library; see openai.Renderer."""

    __slots__ = ()

    def __init__(
        self, parsed: Parsed, unique_id: str, created: int, model: str, fingerprint: str
    ) -> None:
        super().__init__(parsed, unique_id, created, model, fingerprint)
        self.frame = _FRAME
        self.prefix = b"["

    def first(self) -> bytes:
        return b""

    def tail(self, usage: Usage) -> bytes:
        return b'[0,%d,"",null,null,%b]\n' % (USAGE, _encode(usage))

    def error_event(self, error: ApiError) -> bytes:
        return b'[0,%d,"",null,null,null,null,%b]\n' % (ERROR, error.body())

    def keepalive(self) -> bytes:
        return b'[0,%d,"",null]\n' % TEXT

    def tokens(self, choice: int, batch: TokenBatch, usage: Usage | None) -> bytes:
        logprobs = _NULL
        if batch.logprobs:
            logprobs = self._logprobs(choice, batch.logprobs, ends_broken(batch.text))
        return _line(choice, TEXT, batch.text, _NULL, logprobs, usage)

    def reasoning(self, choice: int, text: str, usage: Usage | None) -> bytes:
        return _line(choice, THOUGHT, text, _NULL, _NULL, usage)

    def tool_deltas(self, choice: int, deltas: list[ToolDelta], usage: Usage | None) -> bytes:
        return b'[%d,%d,"",null,null,%b,%b]\n' % (choice, CALLS, _encode(usage), _encode(deltas))

    def choice_end(self, choice: int, reason: int, usage: Usage | None) -> bytes:
        return _line(choice, TEXT, "", _QUOTED[reason], _NULL, usage)


def _line(
    choice: int, kind: int, text: str, finish: bytes, logprobs: bytes, usage: Usage | None
) -> bytes:
    return b"[%d,%d,%b,%b,%b,%b]\n" % (
        choice, kind, _encode(text), finish, logprobs, _encode(usage),
    )  # fmt: skip
