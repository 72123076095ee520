"""A question for sums of usage: whose, of which days, told apart by what.

Pure. Owns the names by which usage is asked for; must not read anything.
"""

from __future__ import annotations

from typing import Final

import msgspec

COLUMNS: Final = {"key": "key_id", "model": "model_name", "day": "day"}  # as asked -> in the table
_SHOWN: Final = {column: name for name, column in COLUMNS.items()}


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Days in UTC, as 2026-01-31, both included; "" or None: any."""

    by: tuple[str, ...] = ("key_id", "model_name")  # of the table's columns
    key_id: str | None = None
    model_name: str | None = None
    since: str = ""
    until: str = ""

    def equal(self) -> dict[str, str]:
        """Columns that must have a value."""
        asked = {"key_id": self.key_id, "model_name": self.model_name}
        return {column: value for column, value in asked.items() if value is not None}


def columns(text: str) -> tuple[str, ...]:
    """Of the table, from `key,model`. Raises ValueError: what is expected."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = next((name for name in names if name not in COLUMNS), None)
    if unknown is not None or not names:
        raise ValueError(f"by: expected some of {', '.join(COLUMNS)}, got '{(unknown or '')[:40]}'")
    return tuple(dict.fromkeys(COLUMNS[name] for name in names))


def shown(column: str) -> str:
    """What a column of the table is called where it is asked for."""
    return _SHOWN.get(column, column)
