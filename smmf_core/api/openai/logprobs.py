"""Tokens with their logprobs in the two dialects' shapes.

Owns the decoding of token bytes to strings that concatenate to the text; must not know events.
"""

from __future__ import annotations

import codecs
import math
from typing import Any

import msgspec

from smmf_core.messages import TokenLogprob

_LOWEST = -9999.0  # the specification's value for "very unlikely"; JSON has no -inf
_REPLACEMENT = "\ufffd"
_new_decoder = codecs.getincrementaldecoder("utf-8")


class _Top(msgspec.Struct, gc=False):
    token: str
    logprob: float
    bytes: list[int]


class Entry(msgspec.Struct, gc=False):
    """One token as chats show it."""

    token: str
    logprob: float | None
    bytes: list[int]
    top_logprobs: list[_Top]


class LogprobWriter:
    """One choice's tokens, batch by batch.

    A character whose bytes lie in several tokens belongs to the last of them, so that the token
    strings concatenate to the text; `bytes` holds each token's own.
    """

    __slots__ = ("_decoder", "_offset")

    def __init__(self) -> None:
        self._decoder = _new_decoder("replace")
        self._offset = 0

    def chat(self, described: list[TokenLogprob], is_last: bool) -> bytes:
        """`logprobs` of a chat choice or delta, as JSON."""
        entries = msgspec.json.encode(self.entries(described, is_last))
        return b'{"content":%b,"refusal":null}' % entries

    def entries(self, described: list[TokenLogprob], is_last: bool) -> list[Entry]:
        tokens = self._tokens(described, is_last)
        return [
            Entry(token, _clamped(entry.logprob), list(entry.token), _tops(entry, token))
            for token, entry in zip(tokens, described, strict=True)
        ]

    def completion(self, described: list[TokenLogprob], is_last: bool) -> bytes:
        """`logprobs` of a text completion, as JSON. Offsets count characters of the whole text."""
        tokens = self._tokens(described, is_last)
        offsets = []
        for token in tokens:
            offsets.append(self._offset)
            self._offset += len(token)
        columns: dict[str, list[Any]] = {
            "tokens": tokens,
            "token_logprobs": [_clamped(entry.logprob) for entry in described],
            "top_logprobs": [
                _top_map(entry, token) for token, entry in zip(tokens, described, strict=True)
            ],
            "text_offset": offsets,
        }
        return msgspec.json.encode(columns)

    def _tokens(self, described: list[TokenLogprob], is_last: bool) -> list[str]:
        decode = self._decoder.decode
        tokens = [decode(entry.token) for entry in described]
        if is_last and tokens:
            tokens[-1] += decode(b"", True)
        return tokens


def ends_broken(text: str) -> bool:
    """Whether the Worker flushed half a character: no later token completes it."""
    return text.endswith(_REPLACEMENT)


def _clamped(logprob: float | None) -> float | None:
    if logprob is None:
        return None
    return logprob if _LOWEST <= logprob < math.inf else _LOWEST


def _shown(raw: bytes, entry: TokenLogprob, token: str) -> str:
    """The chosen token reads the same in both places; others are decoded by themselves."""
    return token if raw == entry.token else raw.decode("utf-8", "replace")


def _tops(entry: TokenLogprob, token: str) -> list[_Top]:
    return [
        _Top(_shown(raw, entry, token), _clamped(logprob) or 0.0, list(raw))
        for raw, logprob in entry.top
    ]


def _top_map(entry: TokenLogprob, token: str) -> dict[str, float] | None:
    """Token -> logprob, best first, always with the chosen one; null where there is none."""
    if entry.logprob is None:
        return None
    best: dict[str, float] = {}
    for raw, logprob in entry.top:
        best.setdefault(_shown(raw, entry, token), _clamped(logprob) or 0.0)
    best.setdefault(token, _clamped(entry.logprob) or 0.0)
    return best
