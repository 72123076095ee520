"""Bringing an answer in JSON to its end: for models that are too small to find it themselves.

Owns which tokens end a value and where in its JSON an answer is; must not know a grammar. A model
asks for it in its generation_config.json (`wrap_up_after`: tokens of an answer); the bundled demo
model does. Answers of others end where the model ends them, or at their token limit.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from smmf_core.engines.base import Tokenizer

_QUOTE, _BACKSLASH = 0x22, 0x5C
_IN_TEXT = (rb'"[\]}]*',)
_OUTSIDE = (rb"[\]}]+", rb"[,:] ?", rb' ?(?:"|-?[0-9]|true|false|null|[tfn])')
"""The tokens that bring the end nearer, the best first: brackets that close, what leads on to the
next key or value, and values that end soon."""


class Endings:
    """Of one vocabulary, as masks like those of constraint."""

    def __init__(self, tokenizer: Tokenizer, words: int, after: int) -> None:
        """`after`: so many tokens of an answer are free."""
        self.after = after
        self.bytes_of = tokenizer.token_bytes
        pieces = [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)]
        self.in_text = [_mask(pattern, pieces, words) for pattern in _IN_TEXT]
        self.outside = [_mask(pattern, pieces, words) for pattern in _OUTSIDE]


class Place:
    """Where an answer is: inside a text, and there behind a backslash."""

    __slots__ = ("_endings", "_in_text", "_is_escaped", "_tokens")

    def __init__(self, endings: Endings) -> None:
        self._endings = endings
        self._in_text = False
        self._is_escaped = False
        self._tokens = 0

    def accept(self, token: int) -> None:
        self._tokens += 1
        for byte in self._endings.bytes_of(token):
            if self._is_escaped:
                self._is_escaped = False
            elif byte == _BACKSLASH:
                self._is_escaped = self._in_text
            elif byte == _QUOTE:
                self._in_text = not self._in_text

    def narrow(self, mask: NDArray[np.int32]) -> None:
        """Leave only the best tokens that the grammar allows, once it is time."""
        if self._tokens < self._endings.after or self._is_escaped:
            return
        for wanted in self._endings.in_text if self._in_text else self._endings.outside:
            both = mask & wanted
            if both.any():
                mask[:] = both
                return


def _mask(pattern: bytes, pieces: list[bytes], words: int) -> NDArray[np.int32]:
    matches = re.compile(pattern).fullmatch
    bits = np.zeros(words * 32, np.uint8)
    bits[[token for token, piece in enumerate(pieces[: len(bits)]) if matches(piece)]] = 1
    return np.packbits(bits, bitorder="little").view(np.int32)
