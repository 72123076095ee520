"""`smmf logs`: what processes have said, of one model, one instance, one process or all.

Reads the files themselves on the server's machine, where it may be dead or not have started, and
asks the admin API elsewhere. Owns what a line looks like here; must not change a log.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from smmf_core.cli.http import CliError, Endpoint, Refused, Unreachable, add_flags, admin
from smmf_core.config import Server, run_directory
from smmf_core.controller.log_files import ACCESS, owner_of
from smmf_core.controller.log_reader import Cursor, Line, logs_of, read_on, tail
from smmf_core.http.access_log import bare

LINES = 100
SEARCHED = 100_000  # lines of access.log, for those of a model
POLL_S = 0.25  # of a file; a person does not see it
REMOTE_POLL_S = 1.0


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "logs",
        help="what processes have said",
        description="Of models, instances, `controller`, `router-0` ...; without a name of all. "
        "Several are merged by time, each line with its origin.",
    )
    parser.add_argument("names", nargs="*", metavar="MODEL|INSTANCE")
    parser.add_argument("-f", "--follow", action="store_true", help="go on as lines come")
    parser.add_argument(
        "-n", "--lines", type=_count, default=LINES, metavar="N", help=f"how many ({LINES})"
    )
    parser.add_argument(
        "--access", action="store_true", help="the requests instead, one a line (of a MODEL)"
    )
    parser.add_argument("--name", help="which server, when its admin API does not answer")
    parser.add_argument("--run-dir", help="its run directory, if not the usual one")
    add_flags(parser, json_output=False)


def run(args: argparse.Namespace) -> int:
    folder = _folder(args)
    batches = _of_files(folder, args) if folder is not None else _of_server(admin(args), args)
    for lines in batches:
        print("".join(f"{line}\n" for line in lines), end="", flush=True)
    return 0


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of lines")
    return int(text)


def _folder(args: argparse.Namespace) -> Path | None:
    """The logs' folder; None: the server runs on another machine. Raises CliError."""
    if args.name or args.run_dir:
        return _existing(args.name or "default", args.run_dir or "")
    try:
        health = admin(args).get("/admin/v1/health")
    except Unreachable as error:
        try:
            return _existing("default", "")
        except CliError:
            raise error from None
    run_dir = Path(health["run_dir"])
    return run_dir / "logs" if _is_held_by(run_dir, health["pid"]) else None


def _existing(name: str, run_dir: str) -> Path:
    folder = run_directory(Server(name=name, run_dir=run_dir)) / "logs"
    if not folder.is_dir():
        raise CliError(f"no logs in {folder}")
    return folder


def _is_held_by(run_dir: Path, pid: int) -> bool:
    """Whether this is the server's own folder, not one of the same path on another machine."""
    try:
        return (run_dir / "lock").read_text().strip() == str(pid)
    except OSError:
        return False


def _of_files(folder: Path, args: argparse.Namespace) -> Iterator[list[str]]:
    shown = _Lines(args)
    logs = shown.files(folder)
    if not logs and args.names and not args.follow:
        raise CliError(f"no logs of {', '.join(args.names)}")
    lines, cursor = tail(logs, shown.looked_at)
    yield shown.of(lines, cursor)[-args.lines :] if args.lines else []
    while args.follow:
        time.sleep(POLL_S)
        lines, cursor = read_on(shown.files(folder), cursor)
        yield shown.of(lines, cursor)


def _of_server(server: Endpoint, args: argparse.Namespace) -> Iterator[list[str]]:
    shown = _Lines(args)
    cursor: Cursor | None = None
    while cursor is None or args.follow:
        query: list[tuple[str, Any]] = [("name", name) for name in args.names]
        query += [("lines", shown.looked_at), ("access", str(args.access).lower())]
        is_first = cursor is None
        if not is_first:
            time.sleep(REMOTE_POLL_S)
            query.append(("cursor", json.dumps(cursor)))
        try:
            answer = server.get(f"/admin/v1/logs?{urlencode(query)}")
        except Refused as error:
            if error.status == 404 and is_first:
                raise CliError(f"no logs of {', '.join(args.names) or 'this server'}") from None
            raise
        cursor = answer["cursor"]
        lines = shown.of([Line(*line) for line in answer["lines"]], answer["cursor"])
        yield lines[-args.lines or len(lines) :] if is_first else lines


class _Lines:
    """Which files, and how their lines look, by the flags."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._names: list[str] = args.names
        self._is_access: bool = args.access
        is_searched = args.access and args.names
        self.looked_at: int = SEARCHED if is_searched else args.lines  # of the last lines

    def files(self, folder: Path) -> list[Path]:
        return [folder / ACCESS] if self._is_access else logs_of(folder, self._names)

    def of(self, lines: list[Line], cursor: Cursor) -> list[str]:
        """`cursor` knows all the files, those too that say nothing now."""
        if self._is_access:
            return [line.text for line in lines if is_about(line.text, self._names)]
        owners = {owner_of(Path(name)) for name in cursor}
        width = max(map(len, owners), default=0) if len(owners) > 1 else 0
        return [_prefixed(line, width) for line in lines]


def _prefixed(line: Line, width: int) -> str:
    """A line of JSON says itself whose it is."""
    if not width or line.text.startswith('{"time":'):
        return line.text
    return f"{line.owner.ljust(width)} | {line.text}"


def is_about(line: str, names: list[str]) -> bool:
    """Whether a line of access.log is of one of these models or instances; without names each."""
    if not names:
        return True
    if line.startswith("{"):
        try:
            fields = json.loads(line)
        except ValueError:
            return False
        return fields.get("model") in names or fields.get("instance") in names
    shown = [bare(name) for name in names]
    return any(f" {key}={name} " in line for name in shown for key in ("model", "instance"))
