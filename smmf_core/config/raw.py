"""A configuration file before its references are filled in: what can be stored and loaded again.

Owns the unresolved form; must not read files or the environment.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterator
from datetime import date, time
from typing import Any

import msgspec

from smmf_core.config.lines import Path, key_lines
from smmf_core.config.problems import ConfigProblems, Problem, key_name

REFERENCE = re.compile(r"\$\{(env|file):([^}]+)\}")
_ERROR_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


class RawConfig(msgspec.Struct, frozen=True):
    """`table` is JSON-able and holds no secret that the file does not spell out: store `table` and
    `source`, and `RawConfig(table, source)` is the same configuration again."""

    table: dict[str, Any]
    source: str  # the file, or the folder of the model; relative paths are beside it
    lines: dict[Path, int] = {}  # of keys, for messages
    names: dict[Path, str] = {}  # of keys that stand in the file under another name
    warnings: list[Problem] = []

    def problem(self, path: Path, kind: str, message: str) -> Problem:
        """A problem at a key, or at the section that lacks it."""
        line = self.lines.get(path) or self.lines.get(path[:-1], 0)
        return Problem(self.source, line, self.names.get(path) or key_name(path), kind, message)


def read_toml(text: str, source: str) -> RawConfig:
    """Raises ConfigProblems for what is not TOML, or no value of a configuration (dates, nan)."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigProblems([_syntax_problem(str(error), text, source)]) from None
    raw = RawConfig(table, source, key_lines(text))
    if wrong := [raw.problem(path, "value", text) for path, text in _not_values(table, ())]:
        raise ConfigProblems(wrong)
    return raw


def _not_values(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _not_values(item, (*path, key))
    elif isinstance(value, list):
        for item in value:
            yield from _not_values(item, path)
    elif isinstance(value, date | time):
        yield path, "a date or time is not a value here; a string?"
    elif isinstance(value, float) and not math.isfinite(value):
        yield path, "expected a finite number"


def _syntax_problem(error: str, text: str, source: str) -> Problem:
    place = _ERROR_PLACE.search(error)
    line = int(place[1]) if place and place[1] else text.count("\n") + 1
    return Problem(source, line, "", "syntax", _ERROR_PLACE.sub("", error))
