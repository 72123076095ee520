"""A configuration file while it is read: its values with references filled in, its problems so far.

Owns `${...}`; must not read files or the environment itself: both are given to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from smmf_core.config.lines import Path
from smmf_core.config.problems import ConfigProblems, Problem
from smmf_core.config.raw import REFERENCE, RawConfig

ReadFile = Callable[[str], str]


class Interpolated(str):
    """A string that held `${...}`: it may stand for a number or a truth value."""


class Source:
    """Values may be moved to where they belong: `move` keeps what the operator calls them."""

    def __init__(self, raw: RawConfig, env: Mapping[str, str], read: ReadFile) -> None:
        self.raw = raw
        self.problems: list[Problem] = []
        self._env = env
        self._read = read
        self._called: dict[Path, Path] = {}  # where a value is -> where it stands in the file
        self.table: dict[str, Any] = {k: self._expand(v, (k,)) for k, v in raw.table.items()}

    def problem(self, path: Path, kind: str, message: str) -> None:
        self.problems.append(self.raw.problem(self._called.get(path, path), kind, message))

    def section(self, name: str) -> dict[str, Any]:
        """The table of that name, which is added when there is none."""
        table = self.table.setdefault(name, {})
        if not isinstance(table, dict):
            self.problem((name,), "type", "expected a table")
            table = self.table[name] = {}
        return table

    def move(self, old: Path, new: Path) -> None:
        """A value from [section] key to another place; one that stands there already is kept."""
        values, place = self.section(old[0]), self.section(new[0])
        if new[1] in place:
            self.problem(old, "value", f"the same as '{new[1]}', which is given too")
        else:
            place[new[1]] = values[old[1]]
            self._called[new] = self._called.get(old, old)
        del values[old[1]]

    def finish(self) -> None:
        if self.problems:
            raise ConfigProblems(sorted(self.problems, key=lambda problem: problem.line))

    def _expand(self, value: Any, path: Path) -> Any:
        if isinstance(value, dict):
            return {key: self._expand(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._expand(item, path) for item in value]
        if isinstance(value, str) and REFERENCE.search(value):
            return Interpolated(REFERENCE.sub(lambda found: self._fill_in(found, path), value))
        return value

    def _fill_in(self, found: re.Match[str], path: Path) -> str:
        kind, name = found[1], found[2]
        if kind == "file":
            try:
                return self._read(name).strip()
            except (OSError, UnicodeDecodeError) as error:
                self.problem(path, "file", f"cannot read {name}: {error}")
                return ""
        name, has_default, default = name.partition(":-")
        if not has_default and name not in self._env:
            self.problem(path, "value", f"the environment variable {name} is not set")
        return self._env.get(name, "") or default
