"""`smmf start controller|worker|apiserver -c FILE`: DB-GPT's three processes as parts of our one.

The controller is our server without the file's models, a worker adds its file's models to it, the
API server is the Router's address and keys. Owns who is meant by a file; what stands in it is
config's to read.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from smmf_core.cli.http import Endpoint, add_flags, admin
from smmf_core.config import load_server
from smmf_core.config.addresses import admin_url
from smmf_core.config.raw import REFERENCE
from smmf_core.config.targets import read_raw
from smmf_core.errors import ConfigError

_ROLES = {  # role -> (what it does, its section in DB-GPT's file)
    "controller": ("the server, without models", "controller"),
    "worker": ("add the file's models to the running controller", "worker"),
    "apiserver": ("have the running controller answer at the file's address, for its keys", "api"),
}
Row = dict[str, Any]


def add_roles(subparsers: Any) -> None:
    start = subparsers.add_parser("start", help="DB-GPT's processes")
    roles = start.add_subparsers(dest="role", metavar="ROLE", required=True)
    for role, (about, _) in _ROLES.items():
        parser = roles.add_parser(role, help=about)
        parser.add_argument(
            "-c", "--config", required=True, metavar="FILE", help="DB-GPT's own form, or ours"
        )
        parser.add_argument(
            "-d", "--daemon", action="store_true", help="the controller in the background"
        )
        if role == "controller":
            parser.add_argument("--name", help="names the server among others of this user")
            parser.add_argument("--run-dir", help="where its sockets and logs are")
        else:
            add_flags(parser, json_output=False)


def run(args: argparse.Namespace) -> int:
    if args.role == "controller":
        from smmf_core.cli.dbgpt_controller import serve  # the others do without a server's modules

        return serve(args)
    server = controller_of(args)
    if args.role == "worker":
        from smmf_core.cli.add import register

        print(register(server, args.config)["message"])
    else:
        _move_router(server, args.config)
    return 0


def controller_of(args: argparse.Namespace) -> Endpoint:
    """Whom a worker or an API server belongs to:

    1. as the command line or SMMF_URL says
    2. `controller_addr` of its section, the first of several
    3. the controller that the same file describes
    4. the usual address
    It is sent the file's key, unless SMMF_API_KEY is set.
    """
    key = _key_of(args.config)
    if getattr(args, "url", None) or os.environ.get("SMMF_URL"):
        return admin(args, key)  # 1
    services = _services(Path(args.config))
    section = services.get(_ROLES[args.role][1], {})
    if address := section.get("controller_addr"):
        return Endpoint(_filled_in(str(address)).partition(",")[0].strip(), key)  # 2
    if "controller" in services:
        found = load_server(args.config, {}).server
        return Endpoint(admin_url(found), key)  # 3
    return admin(args, key)  # 4


def _key_of(file: str) -> str:
    """The first of its API keys; "" when it has none to tell."""
    try:
        keys = load_server(file, {}).server.api_keys
    except ConfigError:  # a model's file, or a reference that means nothing here
        return ""
    return keys[0] if keys else ""


def _services(file: Path) -> Row:
    """The sections `[service.model.*]`; none in a file of our own form."""
    table: Any = read_raw(file).table
    for key in ("service", "model"):
        table = table.get(key)
        if not isinstance(table, dict):
            return {}
    return {name: section for name, section in table.items() if isinstance(section, dict)}


def _filled_in(text: str) -> str:
    """References to the environment, with their defaults."""

    def value(found: Any) -> str:
        name, _, default = found[2].partition(":-")
        return os.environ.get(name, "") or default

    return REFERENCE.sub(value, text)


def _move_router(server: Endpoint, file: str) -> None:
    wanted = load_server(file, {}).server
    body = {"host": wanted.host, "port": wanted.port, "api_keys": wanted.api_keys}
    print(server.post("/admin/v1/router", body)["message"])
