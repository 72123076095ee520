"""`smmf shutdown`: ends the whole server, also one whose Controller died.

Returns when everything has ended. Must not signal a process that it has not verified (see orphans).
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from smmf_core.cli import orphans
from smmf_core.cli.http import CliError, Endpoint, Unreachable, add_flags, admin
from smmf_core.config import Server, run_directory

POLL_S = 0.1
SHUTDOWN_S = 90.0  # every model drains at the same time


def add_parser(subparsers: Any) -> None:
    shutdown = subparsers.add_parser("shutdown", help="stop the whole server")
    shutdown.add_argument("--force", action="store_true", help="do not drain")
    shutdown.add_argument(
        "--name", default="default", help="which one, when its admin API does not answer"
    )
    shutdown.add_argument("--run-dir", default="", help="its run directory, if not the usual one")
    add_flags(shutdown, json_output=False)


def run(args: argparse.Namespace) -> int:
    server = admin(args)
    try:
        pid = server.get("/admin/v1/health").get("pid", 0)
        started = orphans.controller_start(pid)
        server.post("/admin/v1/shutdown", {"force": args.force}, SHUTDOWN_S)
    except Unreachable as error:
        folder = run_directory(Server(name=args.name, run_dir=args.run_dir))
        if not orphans.end(folder, args.force, SHUTDOWN_S):
            raise error from None
        return 0
    deadline = time.monotonic() + SHUTDOWN_S
    while not _is_gone(server) or (started and orphans.controller_start(pid) == started):
        if time.monotonic() > deadline:
            raise CliError("the server is still shutting down")
        time.sleep(POLL_S)
    return 0


def _is_gone(server: Endpoint) -> bool:
    try:
        server.get("/admin/v1/health")
    except Unreachable:
        return True
    return False
