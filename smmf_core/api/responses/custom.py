"""Custom tools, which take free text: to a model each is a function with one string.

Owns that function's parameters, and reads the text out of a call's arguments while they come.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}
_MAX_HEAD = 200  # characters: arguments that have not begun their string by then have none
_HEAD = re.compile(r'\s{0,32}\{\s{0,32}"[^"\\]{0,64}"\s{0,32}:\s{0,32}"')
_PLAIN = re.compile(r'[^"\\]+')
_HEX = re.compile(r"\\u([0-9a-fA-F]{4})")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_ESCAPE_CHARACTERS = 6  # of an escape by number
_REPLACEMENT = "\ufffd"


def wrapped(text: str) -> str:
    """The arguments of a call with this text."""
    return msgspec.json.encode({"input": text}).decode()


class InputReader:
    """Takes the arguments in pieces, gives the text of their first member.

    What the text is does not depend on the pieces. Arguments of another form are the text.
    """

    __slots__ = ("_has_begun", "_has_ended", "_held")

    def __init__(self) -> None:
        self._held = ""  # what is not understood yet
        self._has_begun = False  # the string's opening quote is behind
        self._has_ended = False

    def push(self, piece: str) -> str:
        if self._has_ended:
            return ""
        self._held += piece
        if not self._has_begun:
            head = _HEAD.match(self._held, 0, _MAX_HEAD)
            if head is None:
                return ""
            self._has_begun = True
            self._held = self._held[head.end() :]
        return self._read(is_final=False)

    def finish(self) -> str:
        """What is held back, at the end of the call."""
        if not self._has_begun:
            return _other(self._held)
        return "" if self._has_ended else self._read(is_final=True)

    def _read(self, is_final: bool) -> str:
        """The string up to its end, or to an escape that is not whole."""
        held, at = self._held, 0
        found: list[str] = []
        while at < len(held):
            if plain := _PLAIN.match(held, at):
                found.append(plain[0])
                at = plain.end()
            elif held[at] == '"':
                self._has_ended = True
                break
            else:
                text, size = _escape(held, at, is_final)
                if not size:
                    break
                found.append(text)
                at += size
        self._held = "" if self._has_ended else held[at:]
        return "".join(found)


def _escape(held: str, at: int, is_final: bool) -> tuple[str, int]:
    """(what an escape stands for, its characters); 0 characters: more are needed."""
    code = held[at + 1 : at + 2]
    if code != "u":
        return (_ESCAPES.get(code, code), 2) if code else ("", 0)
    unit = _unit(held, at)
    if unit is None:
        is_short = len(held) - at < _ESCAPE_CHARACTERS
        return ("", 0) if is_short else ("u", 2)
    if not 0xD800 <= unit < 0xE000:
        return chr(unit), _ESCAPE_CHARACTERS
    other = at + _ESCAPE_CHARACTERS
    low = _unit(held, other)
    if unit < 0xDC00 and low is not None and 0xDC00 <= low < 0xE000:
        pair = 0x10000 + (unit - 0xD800 << 10) + low - 0xDC00
        return chr(pair), 2 * _ESCAPE_CHARACTERS
    may_pair = unit < 0xDC00 and not is_final and len(held) - other < _ESCAPE_CHARACTERS
    return ("", 0) if may_pair and '"' not in held[other:] else (_REPLACEMENT, _ESCAPE_CHARACTERS)


def _unit(held: str, at: int) -> int | None:
    found = _HEX.match(held, at)
    return int(found[1], 16) if found else None


def _other(arguments: str) -> str:
    """Arguments that do not begin with a string: the first string in them, or all of it."""
    try:
        given = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    if isinstance(given, dict):
        texts = [value for value in given.values() if isinstance(value, str)]
        return texts[0] if texts else arguments
    return given if isinstance(given, str) else arguments
