"""One JSON value that comes in pieces: where it ends, and its text as strict JSON.

Owns the syntax (RFC 8259) and two mercies: a control character inside a string, and a backslash
that escapes nothing, as models write them, are escaped. Must not build values.
"""

from __future__ import annotations

import json
import re

_VALUE, _VALUE_OR_END, _KEY, _KEY_OR_END, _COLON, _COMMA, _STRING = range(7)
_SPACES = " \t\n\r"
_PLAIN = re.compile(r'[^"\\\x00-\x1f]+')
_WORD = re.compile(r"[-+.0-9A-Za-z]+")
_LITERAL = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null", re.ASCII)
_ESCAPE = re.compile(r'\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4})')
_ESCAPE_BEGUN = re.compile(r"\\(?:u[0-9A-Fa-f]{0,3})?\Z")
_CLOSING = {"{": "}", "[": "]"}
_MAX_DEPTH = 128
_MAX_WORD = 400  # longer numbers are no numbers


class JsonScanner:
    """Give it text and where to go on; it says how far it came.

    What it does not take may belong to it once more text has come, unless it `is_done` or
    `is_bad`.
    """

    __slots__ = ("_is_key", "_open", "_state", "is_bad", "is_done")

    def __init__(self, in_object: bool = False) -> None:
        """`in_object`: it begins behind a member of an object."""
        self._open = ["{"] if in_object else []
        self._state = _COMMA if in_object else _VALUE
        self._is_key = False
        self.is_done = False
        self.is_bad = False

    def take(self, text: str, at: int) -> tuple[str, int]:
        """(the text that was taken, where it ends)"""
        out: list[str] = []
        while at < len(text) and not self.is_done:
            if self._state == _STRING:
                piece, end = self._string(text, at)
            else:
                end = self._mark(text, at)
                piece = text[at:end]
            if end == at:
                break
            out.append(piece)
            at = end
        return "".join(out), at

    def _string(self, text: str, at: int) -> tuple[str, int]:
        """The next run of a string's inside, as strict JSON has it."""
        if plain := _PLAIN.match(text, at):
            return plain.group(), plain.end()
        mark = text[at]
        if mark == '"':
            if self._is_key:
                self._state = _COLON
            else:
                self._ended()
            return mark, at + 1
        if mark != "\\":
            return json.dumps(mark)[1:-1], at + 1
        if escape := _ESCAPE.match(text, at):
            return escape.group(), escape.end()
        if _ESCAPE_BEGUN.match(text, at):
            return "", at
        return "\\\\", at + 1

    def _mark(self, text: str, at: int) -> int:
        """What lies outside of strings: where it ends, `at` for what cannot be taken."""
        mark, state = text[at], self._state
        if mark in _SPACES:
            return at + 1
        if mark == '"' and state in (_VALUE, _VALUE_OR_END, _KEY, _KEY_OR_END):
            self._is_key = state in (_KEY, _KEY_OR_END)
            self._state = _STRING
        elif mark in _CLOSING and state in (_VALUE, _VALUE_OR_END) and len(self._open) < _MAX_DEPTH:
            self._open.append(mark)
            self._state = _KEY_OR_END if mark == "{" else _VALUE_OR_END
        elif self._may_close(mark):
            self._open.pop()
            self._ended()
        elif mark == ":" and state == _COLON:
            self._state = _VALUE
        elif mark == "," and state == _COMMA:
            self._state = _KEY if self._open[-1] == "{" else _VALUE
        elif state in (_VALUE, _VALUE_OR_END):
            return self._literal(text, at)
        else:
            self.is_bad = True
            return at
        return at + 1

    def _may_close(self, mark: str) -> bool:
        is_closing = bool(self._open) and mark == _CLOSING[self._open[-1]]
        return is_closing and self._state in (_COMMA, _KEY_OR_END, _VALUE_OR_END)

    def _literal(self, text: str, at: int) -> int:
        word = _WORD.match(text, at)
        if word is not None and word.end() == len(text) and len(word.group()) < _MAX_WORD:
            return at  # more of it may come
        if word is None or not _LITERAL.fullmatch(word.group()):
            self.is_bad = True
            return at
        self._ended()
        return word.end()

    def _ended(self) -> None:
        self._state = _COMMA
        self.is_done = not self._open
