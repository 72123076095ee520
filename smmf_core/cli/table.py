"""Tables and values for people, JSON for programs.

On a terminal rich draws the tables, cut to its width; into a pipe they are plain text. Owns how
output looks; must not fetch anything.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

_GAP = "   "
_NARROW_GAP = 2  # where a terminal has no room for that
RICH_ROWS = 200  # rich takes 0.3 ms a row: a thousand models would be late
_STYLES = {
    "ready": "green",
    "starting": "yellow",
    "loading": "yellow",
    "stopping": "yellow",
    "draining": "yellow",
    "backoff": "yellow",
    "offline": "yellow",
    "unhealthy": "red",
    "failed": "bold red",
    "registered": "dim",
    "stopped": "dim",
}


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def show_table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """To standard output, by what that is."""
    if sys.stdout.isatty() and len(rows) <= RICH_ROWS:
        _show_rich(headings, rows)
    else:
        print(table(headings, rows))


def table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns as wide as needed; numbers to the right."""
    cells = [[cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    numeric = _numeric(headings, rows)
    lines = [
        _GAP.join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in [list(headings), *cells]
    ]
    return "\n".join(lines)


def _numeric(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[bool]:
    return [
        bool(rows) and all(isinstance(row[i], int | float) for row in rows)
        for i in range(len(headings))
    ]


def _show_rich(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    width = max(map(len, table(headings, rows).splitlines()))
    gap = len(_GAP) if width <= console.width else _NARROW_GAP
    drawn = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    for heading, is_number in zip(headings, _numeric(headings, rows), strict=True):
        drawn.add_column(heading, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(text, state_style(text)) for text in map(cell, row)))
    console.print(drawn)


def state_style(text: str) -> str:
    """rich's style for a state; "" for any other text."""
    return _STYLES.get(text.partition(" ")[0], "")


def pairs(values: dict[str, Any]) -> str:
    """One `key  value` a line."""
    width = max(map(len, values), default=0)
    return "\n".join(f"{key.ljust(width)}  {cell(value)}".rstrip() for key, value in values.items())


def cell(value: Any) -> str:
    """One value in one line; nothing is a dash."""
    if value is None or value == "" or value == []:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, list):
        return ", ".join(cell(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key}={cell(item)}" for key, item in value.items()) or "-"
    return str(value)


def size(count: float) -> str:
    """Bytes in a person's unit."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def duration(seconds: float) -> str:
    """`4m 05s`, in the two largest units."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02}m"
