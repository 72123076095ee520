"""Regular expressions of JSON schemas (`pattern`), as GBNF for the inside of a JSON string.

Owns the subset that has a grammar: ECMA-262 without look-around, back references and word
boundaries. Must not know schemas.
"""

from __future__ import annotations

_CLASSES = {"d": "0-9", "w": "a-zA-Z0-9_", "s": " "}  # a control character would need an escape
_ANY = '[^"\\\\\\x7F\\x00-\\x1F]'
_NEVER = '"\\\\\\x7F\\x00-\\x1F'  # what a negated class must leave out, too
_CONTROLS = "nrtfv0"
_MAX_REPEAT = 2000


def pattern_rule(pattern: str) -> str:
    """A rule body for the strings in which the pattern is found; anchors bind it to their ends.

    Raises ValueError for what has no grammar. Uses the rule `char` for what lies around it.
    """
    parser = _Parser(pattern)
    body = parser.alternatives()
    if parser.rest:
        raise ValueError(f"unexpected {parser.rest[0]!r}")
    return body


class _Parser:
    def __init__(self, pattern: str) -> None:
        self.rest = pattern
        self._depth = 0

    def alternatives(self) -> str:
        parts = [self._sequence()]
        while self.rest.startswith("|"):
            self._take()
            parts.append(self._sequence())
        return f"( {' | '.join(parts)} )"

    def _sequence(self) -> str:
        """One alternative. At the outermost level, what is not anchored may have more around."""
        parts: list[str] = []
        is_outer = self._depth == 0
        if is_outer and not self.rest.startswith("^"):
            parts.append("char*")
        if self.rest.startswith("^"):
            self._anchor(is_outer)
        while self.rest and self.rest[0] not in "|)$":
            parts.append(self._repeated(self._atom()))
        if self.rest.startswith("$"):
            self._anchor(is_outer)
            if self.rest and self.rest[0] not in "|)":
                raise ValueError("text after $")
        elif is_outer:
            parts.append("char*")
        return " ".join(parts) or '""'

    def _anchor(self, is_outer: bool) -> None:
        if not is_outer:
            raise ValueError("an anchor inside a group")
        self._take()

    def _atom(self) -> str:
        character = self._take()
        if character == "(":
            return self._group()
        if character == "[":
            return self._class()
        if character == ".":
            return _ANY
        if character == "\\":
            return self._escape()
        if character in "*+?{":
            raise ValueError(f"nothing to repeat before {character!r}")
        return _one(character)

    def _group(self) -> str:
        if self.rest.startswith("?:"):
            self.rest = self.rest[2:]
        elif self.rest.startswith("?"):
            raise ValueError("look-around and named groups")
        self._depth += 1
        body = self.alternatives()
        self._depth -= 1
        if self._take() != ")":
            raise ValueError("a group without end")
        return body

    def _escape(self) -> str:
        character = self._take()
        if character in _CLASSES:
            return f"[{_CLASSES[character]}]"
        if character.lower() in _CLASSES:
            return f"[^{_CLASSES[character.lower()]}{_NEVER}]"
        if character.isalnum():
            raise ValueError(f"\\{character}")
        return _one(character)

    def _class(self) -> str:
        is_negated = self.rest.startswith("^")
        if is_negated:
            self._take()
        members = ""
        while not self.rest.startswith("]"):
            members += self._member()
        self._take()
        if not members:
            raise ValueError("an empty class")
        return f"[^{members}{_NEVER}]" if is_negated else f"[{members}]"

    def _member(self) -> str:
        character = self._take()
        if character == "\\":
            character = self._take()
            if character in _CLASSES:
                return _CLASSES[character]
            if character.isalnum():
                raise ValueError(f"\\{character} in a class")
        if character in '"\\' or ord(character) < 32:
            raise ValueError(f"{character!r} in a class")
        escaped = f"\\{character}" if character in "[]" else character
        if character in "-^":
            escaped = f"\\x{ord(character):02X}"
        if self.rest.startswith("-") and not self.rest.startswith("-]"):
            self._take()
            return f"{escaped}-{self._member()}"
        return escaped

    def _repeated(self, atom: str) -> str:
        if self.rest[:1] in ("*", "+", "?"):
            atom += self._take()
        elif self.rest.startswith("{"):
            bounds, brace, self.rest = self.rest[1:].partition("}")
            low, comma, high = bounds.partition(",")
            if not brace or not low.isdigit() or (high and not high.isdigit()):
                raise ValueError("a repetition without bounds")
            if max(int(low), int(high or 0)) > _MAX_REPEAT:
                raise ValueError(f"more than {_MAX_REPEAT} repetitions")
            atom += f"{{{low}{comma}{high}}}"
        if self.rest[:1] == "?":  # a lazy one: the same strings
            self._take()
        return atom

    def _take(self) -> str:
        if not self.rest:
            raise ValueError("an unfinished expression")
        character, self.rest = self.rest[0], self.rest[1:]
        return character


def _one(character: str) -> str:
    """A literal character as it stands in a JSON string."""
    if ord(character) < 32:
        raise ValueError("a control character")
    if character in '"\\':
        return '"\\\\\\' + character + '"'
    return f'"{character}"'
