"""`smmf list`, `smmf show`, `smmf ps`: what the server has and what runs.

Owns the columns; must not change anything on the server.
"""

from __future__ import annotations

import argparse
import time
from typing import Any
from urllib.parse import quote

from smmf_core.cli.debug import layout
from smmf_core.cli.http import add_flags, admin, wants_json
from smmf_core.cli.table import duration, pairs, print_json, show_table, size

LIST_COLUMNS = ("name", "task", "backend", "deployment_type", "status", "capabilities")
PS_COLUMNS = (
    "id", "model", "state", "backend", "device", "mem", "in_flight", "queue", "tok_s", "until"
)  # fmt: skip
_HEADINGS = {
    "deployment_type": "TYPE",
    "gpu_mem": "GPU-MEM",
    "gpu_util": "GPU",
    "in_flight": "IN-FLIGHT",
    "tok_s": "TOK/S",
}
_NEVER = "never"
_SERVER_ROLES = ("controller", "router")  # are not unloaded
Row = dict[str, Any]


def add_parser(subparsers: Any) -> None:
    listing = subparsers.add_parser("list", help="registered models")
    _add_quiet(listing, "only the names")
    add_flags(listing)
    one = subparsers.add_parser("show", help="all about one model")
    one.add_argument("model", metavar="MODEL")
    add_flags(one)
    ps = subparsers.add_parser("ps", help="running instances")
    ps.add_argument("--all", action="store_true", help="the controller and the routers too")
    _add_quiet(ps, "only the ids")
    add_flags(ps)


def _add_quiet(parser: argparse.ArgumentParser, about: str) -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help=about)


def run(args: argparse.Namespace) -> int:
    server = admin(args)
    if args.verb == "list":
        _print_rows(server.get("/admin/v1/models"), LIST_COLUMNS, args)
    elif args.verb == "ps":
        rows = server.get("/admin/v1/instances" + ("?all=true" if args.all else ""))
        columns = _ps_columns(rows)
        _print_rows(rows, (*columns, "role", "pid") if args.all else columns, args)
    else:
        _print_model(server.get(f"/admin/v1/models/{quote(args.model, safe='')}"), args)
    return 0


def _print_rows(rows: list[Row], columns: tuple[str, ...], args: argparse.Namespace) -> None:
    if wants_json(args):
        print_json(rows)
    elif args.quiet:
        print("".join(f"{row[columns[0]]}\n" for row in rows), end="")
    else:
        _show_rows(rows, columns)


def _show_rows(rows: list[Row], columns: tuple[str, ...]) -> None:
    headings = [_HEADINGS.get(column, column.upper()) for column in columns]
    show_table(headings, [[_value(row, column) for column in columns] for row in rows])


def _print_model(model: Row, args: argparse.Namespace) -> None:
    if wants_json(args):
        print_json(model)
        return
    instances, config = model.pop("instances", None), model.pop("config", None)
    print(pairs({key: _value(model, key) for key in model}))
    if config:
        print(f"\n{layout({'config': config})}")
    if instances:
        print()
        _show_rows(instances, _ps_columns(instances))


def _ps_columns(rows: list[Row]) -> tuple[str, ...]:
    """With those of GPUs where an instance is on one."""
    if all(row.get("gpu_mem") is None for row in rows):
        return PS_COLUMNS
    after = PS_COLUMNS.index("mem") + 1
    return (*PS_COLUMNS[:after], "gpu_mem", "gpu_util", *PS_COLUMNS[after:])


def _value(row: Row, column: str) -> Any:
    """As a person reads it."""
    value = row.get(column)
    if column in ("mem", "gpu_mem", "memory_bytes") and value:
        return size(value)
    if column == "gpu_util" and value is not None:
        return f"{value:.0%}"
    if column == "created" and value:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
    if column == "until" and row.get("role") not in _SERVER_ROLES:
        return _NEVER if value is None else duration(value)
    if column == "state" and row.get("progress"):
        return f"{value} {row['progress']:.0%}"
    if column == "status" and row.get("degraded"):
        return f"{value} (degraded)"
    return value
