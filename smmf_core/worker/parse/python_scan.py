"""One Python literal that comes in pieces: where it ends, and the same value as JSON.

Owns the syntax of strings, numbers, True, False, None, lists, tuples and dicts (Python's reference,
2.4 to 2.7 and 6.2); JSON's own words pass, too. Must not build values.
"""

from __future__ import annotations

import json
import math
import re

_VALUE, _KEY, _COLON, _COMMA, _STRING = range(5)
_WORD = re.compile(r"[-+.0-9A-Za-z_]+")
_NUMBER = re.compile(r"[-+]?(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][-+]?\d+)?", re.ASCII)
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?", re.ASCII)
_WORDS = {"True": "true", "False": "false", "None": "null", "true": "true", "false": "false",
          "null": "null"}  # fmt: skip
_ESCAPES = {"n": "\\n", "t": "\\t", "r": "\\r", "b": "\\b", "f": "\\f", "a": "\\u0007",
            "v": "\\u000b", "0": "\\u0000", "\n": "", "\\": "\\\\", "'": "'", '"': '\\"',
            "/": "/"}  # fmt: skip
_HEX = {"x": 2, "u": 4, "U": 8}
_CLOSING = {"{": "}", "[": "]", "(": ")"}
_JSON = {"(": "[", ")": "]"}
_MAX_DEPTH = 128
_MAX_WORD = 400  # longer numbers are no numbers


class PythonScanner:
    """As JsonScanner, whose words these are. What `take` gives is JSON."""

    __slots__ = ("_is_key", "_needs_comma", "_open", "_quote", "_state", "is_bad", "is_done")

    def __init__(self) -> None:
        self._open: list[str] = []
        self._state = _VALUE
        self._is_key = False
        self._needs_comma = False  # before what comes next, if anything does
        self._quote = ""
        self.is_done = False
        self.is_bad = False

    def take(self, text: str, at: int) -> tuple[str, int]:
        """(the JSON of the text that was taken, where it ends)"""
        out: list[str] = []
        while at < len(text) and not self.is_done and not self.is_bad:
            piece, end = self._string(text, at) if self._state == _STRING else self._mark(text, at)
            if end == at:
                break
            out.append(piece)
            at = end
        return "".join(out), at

    def _string(self, text: str, at: int) -> tuple[str, int]:
        """The next run of a string's inside, as JSON has it."""
        mark = text[at]
        if mark == self._quote:
            if self._is_key:
                self._state = _COLON
            else:
                self._ended()
            return '"', at + 1
        if mark != "\\":
            end = at
            while end < len(text) and text[end] not in ("\\", self._quote):
                end += 1
            return json.dumps(text[at:end], ensure_ascii=False)[1:-1], end
        kind = text[at + 1 : at + 2]
        if not kind:
            return "", at
        if kind in _HEX:
            return self._hexadecimal(text, at, _HEX[kind])
        if kind in _ESCAPES:
            return _ESCAPES[kind], at + 2
        return "\\\\", at + 1  # a backslash that escapes nothing is one

    def _hexadecimal(self, text: str, at: int, digits: int) -> tuple[str, int]:
        written = text[at + 2 : at + 2 + digits]
        try:
            number = int(written or "0", 16)
            character = chr(number)
        except (ValueError, OverflowError):
            return "\\\\", at + 1
        if len(written) < digits:
            return "", at
        return json.dumps(character)[1:-1], at + 2 + digits

    def _mark(self, text: str, at: int) -> tuple[str, int]:
        """What lies outside of strings."""
        mark, state = text[at], self._state
        if mark.isspace():
            return "", at + 1
        if mark in "'\"" and state in (_VALUE, _KEY):
            self._is_key, self._quote, self._state = state == _KEY, mark, _STRING
            return self._comma() + '"', at + 1
        if mark in _CLOSING and state == _VALUE and len(self._open) < _MAX_DEPTH:
            before = self._comma()
            self._open.append(mark)
            self._state = _KEY if mark == "{" else _VALUE
            return before + _JSON.get(mark, mark), at + 1
        if self._may_close(mark):
            self._open.pop()
            self._needs_comma = False
            self._ended()
            return _JSON.get(mark, mark), at + 1
        if mark == ":" and state == _COLON:
            self._state = _VALUE
            return ": ", at + 1
        if mark == "," and state == _COMMA:
            self._state = _KEY if self._open[-1] == "{" else _VALUE
            self._needs_comma = True
            return "", at + 1
        if state == _VALUE:
            return self._word(text, at)
        self.is_bad = True
        return "", at

    def _may_close(self, mark: str) -> bool:
        """Behind a value, or a comma, or the bracket itself."""
        if not self._open or mark != _CLOSING[self._open[-1]]:
            return False
        return self._state in (_COMMA, _KEY) or (self._state == _VALUE and mark != "}")

    def _word(self, text: str, at: int) -> tuple[str, int]:
        word = _WORD.match(text, at)
        if word is not None and word.end() == len(text) and len(word.group()) < _MAX_WORD:
            return "", at  # more of it may come
        written = _literal(word.group()) if word is not None else ""
        if word is None or not written:
            self.is_bad = True
            return "", at
        before = self._comma()
        self._ended()
        return before + written, word.end()

    def _comma(self) -> str:
        needs, self._needs_comma = self._needs_comma, False
        return ", " if needs else ""

    def _ended(self) -> None:
        self._state = _COMMA
        self.is_done = not self._open


def _literal(word: str) -> str:
    """A word of Python as JSON; "" for none."""
    if word in _WORDS:
        return _WORDS[word]
    if not _NUMBER.fullmatch(word) or len(word) >= _MAX_WORD:
        return ""
    plain = word.replace("_", "").removeprefix("+")
    if _JSON_NUMBER.fullmatch(plain):
        return plain
    if plain.removeprefix("-").isdigit():
        return str(int(plain))
    number = float(plain)
    return repr(number) if math.isfinite(number) else ""
