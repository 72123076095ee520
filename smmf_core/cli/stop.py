"""`smmf stop` and `smmf shutdown`: end one model, one instance, or everything.

Returns when the state is reached. Owns the waiting; must not signal a process that it has not
verified (see orphans).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from smmf_core.cli import orphans
from smmf_core.cli.http import CliError, Endpoint, Refused, Unreachable, add_flags, admin
from smmf_core.config import Server, run_directory

POLL_S = 0.1
MARGIN_S = 15.0  # beyond the drain that the server allows, for its own stopping
DRAIN_S = 30.0  # the server's default ([timeouts] drain_s)
SHUTDOWN_S = 90.0  # every model drains at the same time


def add_parser(subparsers: Any) -> None:
    stop = subparsers.add_parser("stop", help="drain and stop a model or an instance")
    stop.add_argument("name", metavar="MODEL|INSTANCE")
    stop.add_argument("--force", action="store_true", help="do not drain")
    stop.add_argument("--timeout", type=float, metavar="S", help="seconds that draining may take")
    add_flags(stop, json_output=False)
    shutdown = subparsers.add_parser("shutdown", help="stop the whole server")
    shutdown.add_argument("--force", action="store_true", help="do not drain")
    shutdown.add_argument(
        "--name", default="default", help="which one, when its admin API does not answer"
    )
    shutdown.add_argument("--run-dir", default="", help="its run directory, if not the usual one")
    add_flags(shutdown, json_output=False)


def run(args: argparse.Namespace) -> int:
    if args.verb == "stop":
        _stop(admin(args), args)
    else:
        _shutdown(admin(args), args)
    return 0


def _stop(server: Endpoint, args: argparse.Namespace) -> None:
    body = {"force": args.force, "timeout_s": args.timeout}
    limit_s = (DRAIN_S if args.timeout is None else args.timeout) + MARGIN_S
    path = _path_of(server, args.name)
    server.post(f"{path}:stop", body, limit_s)
    _wait(lambda: _is_stopped(server, path), limit_s, f"{args.name} is still stopping")


def _path_of(server: Endpoint, name: str) -> str:
    for model in server.get("/admin/v1/models"):
        if name == model["name"] or name in model.get("aliases", []):
            return f"/admin/v1/models/{quote(model['name'], safe='')}"
    for instance in server.get("/admin/v1/instances"):
        if name == instance["id"]:
            return f"/admin/v1/instances/{quote(name, safe='')}"
    raise CliError(f"no model or instance named {name}")


def _is_stopped(server: Endpoint, path: str) -> bool:
    try:
        state = server.get(path)
    except Refused as error:
        if error.status == 404:
            return True
        raise
    return (state.get("status") or state.get("state")) in ("stopped", "failed")


def _shutdown(server: Endpoint, args: argparse.Namespace) -> None:
    try:
        pid = server.get("/admin/v1/health").get("pid", 0)
        started = orphans.controller_start(pid)
        server.post("/admin/v1/shutdown", {"force": args.force}, SHUTDOWN_S)
    except Unreachable as error:
        folder = run_directory(Server(name=args.name, run_dir=args.run_dir))
        if not orphans.end(folder, args.force, SHUTDOWN_S):
            raise error from None
        return
    _wait(
        lambda: _is_gone(server) and (started is None or orphans.controller_start(pid) != started),
        SHUTDOWN_S,
        "the server is still shutting down",
    )


def _is_gone(server: Endpoint) -> bool:
    try:
        server.get("/admin/v1/health")
    except Unreachable:
        return True
    return False


def _wait(reached: Callable[[], bool], limit_s: float, otherwise: str) -> None:
    deadline = time.monotonic() + limit_s
    while not reached():
        if time.monotonic() > deadline:
            raise CliError(otherwise)
        time.sleep(POLL_S)
