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
    shutdown.add_argument("--name", help="the server of that name on this machine")
    shutdown.add_argument("--run-dir", help="the server of that run directory")
    add_flags(shutdown, json_output=False)


def run(args: argparse.Namespace) -> int:
    """1. A name or a run directory was given: that one, by its processes.
    2. The one whose admin API answers. 3. Without an answer the default one's processes."""
    if args.name or args.run_dir:  # 1
        name = args.name or "default"
        if not _end(name, args.run_dir or "", args.force):
            raise CliError(f"no server runs in {args.run_dir or f'the run directory of {name}'}")
        print(f"{args.run_dir or name} has ended")
        return 0
    server = admin(args)
    try:  # 2
        pid = server.get("/admin/v1/health").get("pid", 0)
        started = orphans.controller_start(pid)
        server.post("/admin/v1/shutdown", {"force": args.force}, SHUTDOWN_S)
    except Unreachable as error:  # 3
        if not _end("default", "", args.force):
            raise error from None
        print("the server has ended; its admin API did not answer")
        return 0
    deadline = time.monotonic() + SHUTDOWN_S
    while not _is_gone(server) or (started and orphans.controller_start(pid) == started):
        if time.monotonic() > deadline:
            raise CliError("the server is still shutting down")
        time.sleep(POLL_S)
    print("the server has ended")
    return 0


def _end(name: str, run_dir: str, force: bool) -> int:
    return orphans.end(run_directory(Server(name=name, run_dir=run_dir)), force, SHUTDOWN_S)


def _is_gone(server: Endpoint) -> bool:
    try:
        server.get("/admin/v1/health")
    except Unreachable:
        return True
    return False
