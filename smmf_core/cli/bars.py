"""Instances as lines with a bar each, rewritten in place on a terminal.

Owns how progress looks; must be given a terminal, and must not fetch anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from smmf_core.cli.table import state_style

BAR_WIDTH = 24
MAX_LINES = 20  # more would scroll, and could not be rewritten
Row = dict[str, Any]


class Bars:
    """`show` rewrites what it showed before; `close` leaves nothing of it."""

    def __init__(self, out: TextIO) -> None:
        self._console = Console(file=out)
        self._live: Live | None = None

    def show(self, rows: Sequence[Row]) -> None:
        """Rows as of /admin/v1/instances: id, state, phase, progress (0..1 or None), reason."""
        drawn = _draw(rows)
        if self._live is None:
            self._live = Live(
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        self._live.update(drawn, refresh=True)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __enter__(self) -> Bars:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _draw(rows: Sequence[Row]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column()
    waited_for = sorted(rows, key=lambda row: row["state"] == "ready")
    for row in waited_for[:MAX_LINES]:
        state = row["state"]
        grid.add_row(
            Text(row["id"]), Text(state, state_style(state)), _bar(row), Text(_note(row), "dim")
        )
    if len(rows) > MAX_LINES:
        grid.add_row(Text(f"and {len(rows) - MAX_LINES} more", "dim"))
    return grid


def _bar(row: Row) -> ProgressBar | Text:
    progress = row.get("progress")
    if row["state"] == "ready" or progress is None:
        return Text("")
    return ProgressBar(total=1.0, completed=progress, width=BAR_WIDTH)


def _note(row: Row) -> str:
    if row.get("reason"):
        return str(row["reason"])
    progress = row.get("progress")
    phase = row.get("phase") or ""
    return phase if progress is None else f"{progress:4.0%}  {phase}"
