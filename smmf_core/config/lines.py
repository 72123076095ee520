"""Where each key of a TOML text stands: tomllib tells the values but not their lines.

Owns a scanner for text that tomllib accepted; must not judge it.
"""

from __future__ import annotations

import re

Path = tuple[str, ...]

_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BLANK = re.compile(r"[ \t]*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|' r"'''.*?'{3,5}|" r'"(?:[^"\\\n]|\\.)*"|' r"'[^'\n]*'", re.DOTALL
)
_PLAIN = re.compile(r"[^\"'\[\]{},#\n=]+")


def key_lines(text: str) -> dict[Path, int]:
    """Line (from 1) of every table header and key. In an array of tables, elements are numbered:
    ("models", "0", "name"). A path met twice keeps its first line.
    """
    return _Scanner(text).run()


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Path, int] = {}
        self.counts: dict[Path, int] = {}  # elements of each array of tables so far

    def run(self) -> dict[Path, int]:
        table: Path = ()
        while self._skip(_SPACE) < len(self.text):
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table)
        return self.lines

    def _skip(self, pattern: re.Pattern[str]) -> int:
        match = pattern.match(self.text, self.at)
        self.at = match.end() if match else self.at
        return self.at

    def _mark(self, path: Path, position: int) -> None:
        line = self.text.count("\n", 0, position) + 1
        for depth in range(1, len(path) + 1):
            self.lines.setdefault(path[:depth], line)

    def _header(self) -> Path:
        start = self.at
        is_array = self.text.startswith("[[", start)
        self.at += 2 if is_array else 1
        path = self._inside_arrays(self._key(), is_array)
        self.at += 2 if is_array else 1
        self._mark(path, start)
        return path

    def _inside_arrays(self, key: Path, is_new_element: bool) -> Path:
        """A header's path with the numbers of the array elements that it lies in."""
        path: Path = ()
        for depth, part in enumerate(key, start=1):
            path = (*path, part)
            if is_new_element and depth == len(key):
                self.counts[path] = self.counts.get(path, 0) + 1
            if path in self.counts:
                path = (*path, str(self.counts[path] - 1))
        return path

    def _key(self) -> Path:
        """A dotted key, up to the `=` or `]` behind it."""
        parts: list[str] = []
        while True:
            self._skip(_BLANK)
            start = self.at
            if self.text[start] in "\"'":
                self._skip(_STRING)
                parts.append(self.text[start + 1 : self.at - 1])
            else:
                self._skip(_BARE)
                parts.append(self.text[start : self.at])
            self._skip(_BLANK)
            if self.text[self.at : self.at + 1] != ".":
                return tuple(parts)
            self.at += 1

    def _pair(self, table: Path) -> None:
        start = self.at
        path = (*table, *self._key())
        self._mark(path, start)
        self.at += 1  # the `=`
        self._skip(_BLANK)
        self._value(path)

    def _value(self, path: Path) -> None:
        """Steps over a value; the keys of an inline table are marked too."""
        opening = self.text[self.at]
        if opening in "\"'":
            self._skip(_STRING)
        elif opening in "[{":
            self._group(path, "]" if opening == "[" else "}")
        else:
            self._skip(_PLAIN)

    def _group(self, path: Path, closing: str) -> None:
        self.at += 1
        while True:
            self._skip(_SPACE)
            if self.text[self.at] == closing:
                self.at += 1
                return
            if self.text[self.at] == ",":
                self.at += 1
            elif closing == "}":
                self._pair(path)
            else:
                self._value(path)
