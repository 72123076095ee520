"""`smmf usage`: requests and tokens of each key and model.

Owns the flags and the columns; the sums are the server's.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from smmf_core.cli import key_place
from smmf_core.cli.http import add_flags, wants_json
from smmf_core.cli.table import print_json, show_table
from smmf_core.store.asked import COLUMNS
from smmf_core.store.records import Usage
from smmf_core.store.when import FORMS, day

DEFAULT_BY = ("key", "model")


def add_parser(subparsers: Any) -> None:
    usage = subparsers.add_parser("usage", help="requests and tokens per key and model")
    usage.add_argument("--key", metavar="KEY_ID", help="of this key; '' of requests without one")
    usage.add_argument("--model", metavar="MODEL")
    usage.add_argument("--since", type=_day, metavar="WHEN", help=f"{FORMS}; days are UTC's")
    usage.add_argument("--until", type=_day, metavar="WHEN", help="that day included")
    usage.add_argument(
        "--by", action="append", choices=tuple(COLUMNS), help="a row for each; may repeat"
    )
    key_place.add_flags(usage)
    add_flags(usage)


def run(args: argparse.Namespace) -> int:
    by = tuple(args.by or DEFAULT_BY)
    asked = {"by": ",".join(by), "key": args.key, "model": args.model}
    asked |= {"since": args.since, "until": args.until}
    given = {name: value for name, value in asked.items() if value is not None}
    rows = key_place.place(args).usage(given)
    if wants_json(args):
        print_json(rows)
        return 0
    columns = (*by, *Usage.__struct_fields__)
    show_table([c.upper() for c in columns], [[row[c] for c in columns] for row in rows])
    return 0


def _day(text: str) -> str:
    try:
        return day(text, time.time())
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
