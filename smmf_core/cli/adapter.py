"""`smmf adapter load|unload`: LoRA adapters of a running model, asked for as `MODEL:NAME`.

Returns when every replica has it, or has it no more.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any
from urllib.parse import quote

from smmf_core.cli.http import add_flags, admin

_LOAD_S = 130.0  # the server's own limit, and a margin


def add_parser(subparsers: Any) -> None:
    adapter = subparsers.add_parser("adapter", help="LoRA adapters of a running model")
    actions = adapter.add_subparsers(dest="action", metavar="ACTION", required=True)
    load = actions.add_parser("load", help="load an adapter into every replica")
    load.add_argument("model", metavar="MODEL")
    load.add_argument("name", metavar="NAME")
    load.add_argument("path", metavar="PATH", type=Path)
    add_flags(load, json_output=False)
    unload = actions.add_parser("unload", help="unload it again")
    unload.add_argument("model", metavar="MODEL")
    unload.add_argument("name", metavar="NAME")
    add_flags(unload, json_output=False)


def run(args: argparse.Namespace) -> int:
    body = {"name": args.name}
    if args.action == "load":
        body["path"] = str(args.path.expanduser().resolve())
    path = f"/admin/v1/models/{quote(args.model, safe='')}:{args.action}-adapter"
    model = admin(args).post(path, body, _LOAD_S)
    shown = ", ".join(f"{args.model}:{name}" for name in model["adapters"])
    print(f"adapters: {shown or 'none'}")
    return 0
