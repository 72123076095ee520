"""`smmf debug INSTANCE`: what a running instance is doing right now, as it tells itself.

Owns the layout; must not change anything on the server.
"""

from __future__ import annotations

import argparse
from typing import Any

from smmf_core.cli.http import add_flags, admin, wants_json
from smmf_core.cli.lifecycle import INSTANCES, path_of
from smmf_core.cli.table import cell, pairs, print_json, size, table

_INDENT = "  "
Row = dict[str, Any]


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "debug",
        help="live state of an instance",
        description="Slots, queues, step counter, ring fill, thread stacks, last errors.",
    )
    parser.add_argument("instance", metavar="INSTANCE")
    add_flags(parser)


def run(args: argparse.Namespace) -> int:
    facts = admin(args).post(path_of(INSTANCES, args.instance, "debug"), {})
    if wants_json(args):
        print_json(facts)
    else:
        print(layout({**facts, "mem": size(facts.get("mem", 0))}))
    return 0


def layout(facts: Row) -> str:
    """Single values first, then what takes several lines, each under its name."""
    long = {key: value for key, value in facts.items() if _is_long(value)}
    parts = [pairs({key: value for key, value in facts.items() if key not in long})]
    parts += [f"{key}:\n{_block(value)}" for key, value in long.items()]
    return "\n\n".join(filter(None, parts))


def _is_long(value: Any) -> bool:
    if isinstance(value, str):
        return "\n" in value
    return isinstance(value, dict | list) and bool(value)


def _block(value: Any) -> str:
    if isinstance(value, dict):
        text = layout(value)
    elif isinstance(value, list):
        text = _items(value)
    else:
        text = str(value).rstrip()
    return "\n".join(f"{_INDENT}{line}".rstrip() for line in text.splitlines())


def _items(values: list[Any]) -> str:
    """A table of objects that fit in lines; else one after the other."""
    if not all(isinstance(value, dict) for value in values):
        return "\n".join(map(cell, values))
    if any(map(_is_long, (inner for value in values for inner in value.values()))):
        return "\n\n".join(map(layout, values))
    columns = list(values[0])
    cells = [[value.get(column) for column in columns] for value in values]
    return table([column.upper() for column in columns], cells)
