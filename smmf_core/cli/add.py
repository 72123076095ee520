"""`smmf add`, `smmf rm`, `smmf alias`, `smmf reload`: which models there are, under which names.

Owns the flags; what a file means is the server's to say.
"""

from __future__ import annotations

import argparse
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import quote

from smmf_core.cli.http import CliError, Endpoint, add_flags, admin, wants_json
from smmf_core.cli.lifecycle import INSTANCES, MODELS, tell
from smmf_core.cli.table import print_json, show_table
from smmf_core.cli.waiting import act

OK, WRONG_USE = 0, 2
ALIASES = "/admin/v1/aliases"
Row = dict[str, Any]


def add_parser(subparsers: Any) -> None:
    add = subparsers.add_parser("add", help="register models, kept over restarts of the server")
    add.add_argument("file", nargs="+", metavar="FILE")
    add.add_argument("--no-wait", action="store_true", help="do not wait until they are ready")
    add_flags(add)
    remove = subparsers.add_parser("rm", help="drain, stop and unregister a model")
    remove.add_argument("model", metavar="MODEL")
    add_flags(remove)
    alias = subparsers.add_parser("alias", help="point an alias at a model; without words: list")
    alias.add_argument("name", nargs="?", metavar="NAME")
    alias.add_argument("model", nargs="?", metavar="MODEL")
    alias.add_argument("--rm", action="store_true", help="forget the alias NAME")
    add_flags(alias)
    reload = subparsers.add_parser(
        "reload", help="read the configuration files again; only what changed is touched"
    )
    add_flags(reload)


def run(args: argparse.Namespace) -> int:
    server = admin(args)
    if args.verb == "add":
        _add(server, args)
    elif args.verb == "rm":
        tell(server.delete(f"{MODELS}/{quote(args.model, safe='')}", timeout_s=None), args)
    elif args.verb == "alias":
        return _alias(server, args)
    else:
        tell(act(server, "/admin/v1/reload", {}, INSTANCES), args)
    return OK


def _add(server: Endpoint, args: argparse.Namespace) -> None:
    for file in args.file:
        tell(register(server, file, not args.no_wait), args)


def register(server: Endpoint, file: str, waits: bool = True) -> Row:
    """The models of a file. Returns what the server says of them."""
    answer: Row = act(server, MODELS, {**_content(server, file), "wait": waits}, INSTANCES)
    return answer


def _content(server: Endpoint, file: str) -> Row:
    """The server reads a file of its own machine itself; elsewhere it is given the text."""
    path = Path(file).expanduser().resolve()
    if _is_here(server.host):
        return {"path": str(path)}
    try:
        return {"toml": path.read_text("utf-8"), "source": path.name}
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"cannot read {file}: {error}") from None


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _alias(server: Endpoint, args: argparse.Namespace) -> int:
    if args.name is None:
        _list_aliases(server.get(ALIASES), args)
        return OK
    path = f"{ALIASES}/{quote(args.name, safe='')}"
    if args.rm:
        tell(server.delete(path), args)
    elif args.model is None:
        usage = "`smmf alias NAME MODEL` points an alias, `smmf alias NAME --rm` ends it"
        print(f"smmf: {usage}", file=sys.stderr)
        return WRONG_USE
    else:
        tell(server.put(path, {"model": args.model}), args)
    return OK


def _list_aliases(rows: list[Row], args: argparse.Namespace) -> None:
    if wants_json(args):
        print_json(rows)
    else:
        show_table(("ALIAS", "MODEL"), [(row["alias"], row["model"]) for row in rows])
