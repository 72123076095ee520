"""`smmf top`: a live table of instances: state, queue, requests in flight, tokens a second, memory.

Owns the screen and the keyboard while it runs, and gives both back; must not change anything on the
server.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import sys
import termios
import time
import tty
from typing import TYPE_CHECKING, Any, NamedTuple

from smmf_core.cli.http import CliError, Endpoint, Unreachable, add_flags, admin, wants_json
from smmf_core.cli.table import cell, duration, print_json, size, state_style, table

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.live import Live

INTERVAL_S = 1.0
MIN_INTERVAL_S = 0.1
_GAP = 2
_HEAD_LINES = 3  # above the first instance: the summary, an empty line, the headings
_NARROWEST = 12  # of the first column, however narrow the terminal is
Row = dict[str, Any]


class Column(NamedTuple):
    key: str
    heading: str
    width: int  # 0: as wide as its longest value
    keep: int  # where there is no room, the columns with the highest go


COLUMNS = (
    Column("id", "ID", 0, 0),
    Column("state", "STATE", 0, 1),
    Column("device", "DEVICE", 8, 7),
    Column("mem", "MEM", 9, 5),
    Column("gpu_mem", "GPU MEM", 9, 4),
    Column("gpu_util", "GPU", 5, 6),
    Column("in_flight", "RUN", 5, 3),
    Column("queue", "QUEUE", 5, 3),
    Column("tok_s", "TOK/S", 8, 2),
    Column("restarts", "RST", 4, 9),
    Column("until", "UNTIL", 7, 8),
)


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "top",
        help="live table of instances",
        description="`q` or Ctrl-C ends it. Into a pipe it prints one sample, as with --once.",
    )
    parser.add_argument("--once", action="store_true", help="print one sample and end")
    parser.add_argument(
        "-i", "--interval", type=float, default=INTERVAL_S, metavar="S", help="between samples (1)"
    )
    add_flags(parser)


def run(args: argparse.Namespace) -> int:
    server = admin(args)
    if wants_json(args):
        print_json(sample(server))
    elif args.once or not (sys.stdin.isatty() and sys.stdout.isatty()):
        _print_once(sample(server))
    else:
        with contextlib.suppress(KeyboardInterrupt):
            _watch(server, max(args.interval, MIN_INTERVAL_S))
    return 0


def sample(server: Endpoint) -> Row:
    """What one screen shows. Raises CliError."""
    return summed(server.get("/admin/v1/health"), server.get("/admin/v1/instances"), time.time())


def summed(health: Row, rows: list[Row], now: float) -> Row:
    """The sums, and a row per instance."""
    queues = {row["model"]: row["queue"] or 0 for row in rows}  # a model's, told by each replica
    return {
        "name": health["name"],
        "status": health["status"],
        "uptime_s": round(max(0.0, now - health["started_at"]), 1),
        "models": health["models"],
        "models_ready": health["ready"],
        "in_flight": sum(row["in_flight"] or 0 for row in rows),
        "queue": sum(queues.values()),
        "tok_s": round(sum(row["tok_s"] or 0.0 for row in rows), 1),
        "mem": sum(row["mem"] or 0 for row in rows),
        "instances": rows,
    }


def summary(found: Row) -> str:
    return (
        f"{found['name']}: {found['status']}, up {duration(found['uptime_s'])}, "
        f"models {found['models_ready']}/{found['models']} ready, {found['in_flight']} running, "
        f"{found['queue']} waiting, {found['tok_s']:.1f} tok/s, {size(found['mem'])}"
    )


def shown_columns(rows: list[Row], width: int) -> list[Column]:
    """Those that have a value, and of these as many as fit, the most telling ones."""
    known = [c for c in COLUMNS if c.keep < 2 or any(row.get(c.key) is not None for row in rows)]
    while len(known) > 1:
        first, *rest = [_width(column, rows) for column in known]
        if min(first, _NARROWEST) + sum(rest) + _GAP * len(rest) <= width:
            break
        known.remove(max(known, key=lambda column: column.keep))
    return known


def value(row: Row, column: Column) -> str:
    found = row.get(column.key)
    if found is None:
        return "-"
    if column.key in ("mem", "gpu_mem"):
        return size(found)
    if column.key == "gpu_util":
        return f"{100 * found:.0f} %"
    if column.key == "until":
        return duration(found)
    if column.key == "state" and row.get("progress"):
        return f"{found} {100 * row['progress']:.0f} %"
    return cell(found)


def _width(column: Column, rows: list[Row]) -> int:
    longest = max((len(value(row, column)) for row in rows), default=0)
    return column.width or max(longest, len(column.heading))


def _print_once(found: Row) -> None:
    rows = found["instances"]
    columns = shown_columns(rows, sys.maxsize)
    print(summary(found))
    print(table([c.heading for c in columns], [[value(row, c) for c in columns] for row in rows]))


# --- on a terminal ---


def _watch(server: Endpoint, interval_s: float) -> None:
    """Until the user has had enough. A server that does not answer is waited for."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    found = sample(server)  # the first error is the user's to see
    with _Keys() as keys, Live(console=console, screen=True, auto_refresh=False) as live:
        trouble = ""
        while True:
            _draw(live, found, trouble)
            if keys.has_ended(interval_s):
                return
            try:
                found, trouble = sample(server), ""
            except Unreachable as error:
                trouble = str(error)


def _draw(live: Live, found: Row, trouble: str) -> None:
    width, height = live.console.size
    live.update(_screen(found, trouble, width, height), refresh=True)


def _screen(found: Row, trouble: str, width: int, height: int) -> Group:
    from rich.console import Group
    from rich.text import Text

    head = Text(trouble or summary(found), "bold red" if trouble else "bold", overflow="ellipsis")
    head.no_wrap = True
    lines: list[RenderableType] = [head, Text("")]
    rows = found["instances"]
    room = max(1, height - _HEAD_LINES - 1)
    lines.append(_rich_table(rows[:room], width))
    if len(rows) > room:
        lines.append(Text(f"and {len(rows) - room} more", "dim"))
    return Group(*lines)


def _rich_table(rows: list[Row], width: int) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    columns = shown_columns(rows, width)
    drawn = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for column in columns:
        is_number = bool(column.width) and column.key != "device"
        drawn.add_column(
            column.heading,
            justify="right" if is_number else "left",
            no_wrap=True,
            overflow="ellipsis",
        )
    for row in rows:
        drawn.add_row(*(_styled(Text(value(row, c)), row, c) for c in columns))
    return drawn


def _styled(text: Any, row: Row, column: Column) -> Any:
    if column.key == "state":
        text.style = state_style(row["state"])
    return text


class _Keys:
    """The keyboard, key by key, without showing them; as it was at the end."""

    def __enter__(self) -> _Keys:
        self._fd = sys.stdin.fileno()
        try:
            self._former = termios.tcgetattr(self._fd)
            tty.setcbreak(self._fd)
        except termios.error as error:
            raise CliError(f"no terminal to draw on: {error}") from None
        return self

    def __exit__(self, *_: object) -> None:
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._former)

    def has_ended(self, wait_s: float) -> bool:
        """Whether `q`, Escape or the end of input came within that time."""
        deadline = time.monotonic() + wait_s
        while (left_s := deadline - time.monotonic()) > 0:
            if not select.select([self._fd], [], [], left_s)[0]:
                return False
            keys = os.read(self._fd, 64)
            if not keys or b"q" in keys or b"Q" in keys or keys == b"\x1b":
                return True
        return False
