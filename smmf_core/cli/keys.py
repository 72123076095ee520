"""`smmf keys create|list|revoke`: API keys of a running server, or in the registry of one that does
not run.

Owns the flags and what is printed; a new key is printed once, and kept nowhere here.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from smmf_core.cli import key_place
from smmf_core.cli.http import add_flags, wants_json
from smmf_core.cli.numbers import bounded
from smmf_core.cli.table import pairs, print_json, show_table
from smmf_core.store.issue import LIMITS
from smmf_core.store.when import FORMS, moment

ROLES = {  # role -> what it may do
    "inference": "ask models",
    "read": "look at everything, ask nothing",
    "admin": "everything",
}
FIELDS = ("id", "name", "roles", "models", *LIMITS, "expires_at")
COLUMNS = ("id", "name", "state", "roles", "models", "limits", "expires_at", "last_used")
_HEADINGS = {"expires_at": "EXPIRES", "last_used": "LAST USED"}
_UNITS = {
    "requests_per_minute": "req/min",
    "tokens_per_minute": "tok/min",
    "max_concurrency": "open",
    "monthly_tokens": "tok/month",
}
Row = dict[str, Any]


def add_parser(subparsers: Any) -> None:
    keys = subparsers.add_parser("keys", help="API keys")
    verbs = keys.add_subparsers(dest="act", metavar="ACT", required=True)
    create = verbs.add_parser("create", help="make a key; it is shown this once")
    create.add_argument("name", nargs="?", default="", metavar="NAME", help="whose, or for what")
    roles = "; ".join(f"{role}: {what}" for role, what in ROLES.items())
    create.add_argument(
        "--role", action="append", choices=tuple(ROLES), dest="roles",
        help=f"{roles} (inference)",
    )  # fmt: skip
    create.add_argument(
        "--model", action="append", metavar="MODEL", dest="models", help="only this one; may repeat"
    )
    create.add_argument("--expires", type=_expiry, metavar="WHEN", help=FORMS)
    for limit, most in LIMITS.items():
        flag = "--" + limit.replace("_", "-")
        create.add_argument(flag, type=bounded(1, most), metavar="N", help=f"1 to {most:,}")
    listing = verbs.add_parser("list", help="all keys, without the keys")
    listing.add_argument("--all", action="store_true", help="revoked ones, too")
    listing.add_argument("-q", "--quiet", action="store_true", help="only the ids")
    revoke = verbs.add_parser("revoke", help="end a key at once; what is open goes on")
    revoke.add_argument("id", metavar="KEY_ID")
    for parser in (create, listing, revoke):
        key_place.add_flags(parser)
        add_flags(parser)


def run(args: argparse.Namespace) -> int:
    keys = key_place.place(args)
    if args.act == "create":
        _create(keys.create(_wanted(args)), args)
    elif args.act == "list":
        _list(keys.keys(args.all), args)
    else:
        _tell(keys.revoke(args.id), args)
    return 0


def _wanted(args: argparse.Namespace) -> Row:
    wanted = {"name": args.name, "roles": args.roles, "models": args.models}
    wanted |= {"expires_at": args.expires, **{limit: getattr(args, limit) for limit in LIMITS}}
    return {key: value for key, value in wanted.items() if value is not None}


def _create(row: Row, args: argparse.Namespace) -> None:
    """A program that reads the output gets the key alone."""
    if wants_json(args):
        print_json(row)
        return
    shown = {key: _value(row, key) for key in FIELDS if row.get(key)}
    print(pairs(shown), file=sys.stderr)
    print(f"{row['message']}:", file=sys.stderr)
    print(row["key"])


def _list(rows: list[Row], args: argparse.Namespace) -> None:
    if wants_json(args):
        print_json(rows)
        return
    if args.quiet:
        print("".join(f"{row['id']}\n" for row in rows), end="")
        return
    headings = [_HEADINGS.get(column, column.upper()) for column in COLUMNS]
    show_table(headings, [[_value(row, column) for column in COLUMNS] for row in rows])


def _tell(row: Row, args: argparse.Namespace) -> None:
    if wants_json(args):
        print_json(row)
    else:
        print(row["message"])


def _value(row: Row, column: str) -> Any:
    value = row.get(column)
    if column == "models" and not value:
        return "all"
    if column == "limits":
        return [f"{row[limit]} {unit}" for limit, unit in _UNITS.items() if row.get(limit)]
    if column == "expires_at" and value:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(value))
    return value


def _expiry(text: str) -> float:
    now = time.time()
    try:
        found = moment(text, now, is_ahead=True)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if found <= now:
        raise argparse.ArgumentTypeError(f"'{text}' is over already")
    return found
