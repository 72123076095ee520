"""`smmf list`, `smmf show`, `smmf ps`: what the server has and what runs.

Owns the columns; must not change anything on the server.
"""

from __future__ import annotations

import argparse
from typing import Any
from urllib.parse import quote

from smmf_core.cli.http import add_flags, admin, wants_json
from smmf_core.cli.table import pairs, print_json, size, table

LIST_COLUMNS = ("name", "task", "backend", "deployment_type", "status", "capabilities")
PS_COLUMNS = (
    "id", "model", "state", "backend", "device", "mem", "in_flight", "queue", "tok_s", "until"
)  # fmt: skip
_HEADINGS = {"deployment_type": "TYPE", "in_flight": "IN-FLIGHT", "tok_s": "TOK/S"}


def add_parser(subparsers: Any) -> None:
    listing = subparsers.add_parser("list", help="registered models")
    add_flags(listing)
    one = subparsers.add_parser("show", help="all about one model")
    one.add_argument("model", metavar="MODEL")
    add_flags(one)
    ps = subparsers.add_parser("ps", help="running instances")
    ps.add_argument("--all", action="store_true", help="the controller and the routers too")
    add_flags(ps)


def run(args: argparse.Namespace) -> int:
    server = admin(args)
    if args.verb == "list":
        _print_rows(server.get("/admin/v1/models"), LIST_COLUMNS, args)
    elif args.verb == "ps":
        rows = server.get("/admin/v1/instances" + ("?all=true" if args.all else ""))
        _print_rows(rows, (*PS_COLUMNS, "role", "pid") if args.all else PS_COLUMNS, args)
    else:
        _print_model(server.get(f"/admin/v1/models/{quote(args.model, safe='')}"), args)
    return 0


def _print_rows(
    rows: list[dict[str, Any]], columns: tuple[str, ...], args: argparse.Namespace
) -> None:
    if wants_json(args):
        print_json(rows)
        return
    headings = [_HEADINGS.get(column, column.upper()) for column in columns]
    print(table(headings, [[_value(row, column) for column in columns] for row in rows]))


def _print_model(model: dict[str, Any], args: argparse.Namespace) -> None:
    if wants_json(args):
        print_json(model)
        return
    instances = model.pop("instances", None)
    print(pairs(model))
    if instances:
        print()
        _print_rows(instances, PS_COLUMNS, args)


def _value(row: dict[str, Any], column: str) -> Any:
    value = row.get(column)
    if column == "mem" and value:
        return size(value)
    return value
