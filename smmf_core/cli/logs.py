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
from urllib.parse import quote, urlencode

from smmf_core.cli.http import (
    CliError,
    Endpoint,
    Refused,
    Unreachable,
    add_flags,
    admin,
    wants_json,
)
from smmf_core.cli.lifecycle import INSTANCES, MODELS
from smmf_core.cli.numbers import count
from smmf_core.cli.table import print_json
from smmf_core.config import Server, run_directory
from smmf_core.controller.log_files import ACCESS, owner_of
from smmf_core.controller.log_reader import Cursor, Line, logs_of, read_on, tail
from smmf_core.http.access_log import bare, fields_of
from smmf_core.logs import stamp_of

LINES = 100
SEARCHED = 100_000  # lines of access.log, for those of a model
POLL_S = 0.25  # of a file; a person does not see it
REMOTE_POLL_S = 1.0
Row = dict[str, Any]
Lines = list[str] | list[Row]


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
        "-n", "--lines", type=count, default=LINES, metavar="N", help=f"how many ({LINES})"
    )
    parser.add_argument(
        "--access", action="store_true", help="the requests instead, one a line (of a MODEL)"
    )
    parser.add_argument("--name", help="which server, when its admin API does not answer")
    parser.add_argument("--run-dir", help="its run directory, if not the usual one")
    add_flags(parser)


def run(args: argparse.Namespace) -> int:
    folder = _folder(args)
    shown = _Lines(args)
    batches = _of_files(folder, shown) if folder is not None else _of_server(admin(args), shown)
    for lines in batches:
        if wants_json(args) and not args.follow:
            print_json(lines)
        else:
            print("".join(f"{_as_text(line)}\n" for line in lines), end="", flush=True)
    return 0


def _as_text(line: str | Row) -> str:
    return line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)


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


def _of_files(folder: Path, shown: _Lines) -> Iterator[Lines]:
    shown.check(bool(shown.files(folder)))
    lines, cursor = tail(shown.files(folder), shown.looked_at)
    yield shown.last(lines, cursor)
    while shown.follows:
        time.sleep(POLL_S)
        lines, cursor = read_on(shown.files(folder), cursor)
        yield shown.of(lines, cursor)


def _of_server(server: Endpoint, shown: _Lines) -> Iterator[Lines]:
    query: list[tuple[str, Any]] = [("name", name) for name in shown.names]
    query.append(("access", str(shown.is_access).lower()))
    answer = _ask(server, [*query, ("lines", shown.looked_at)], shown)
    yield shown.last(_lines_of(answer), answer["cursor"])
    while shown.follows:
        time.sleep(REMOTE_POLL_S)
        answer = _ask(server, [*query, ("cursor", json.dumps(answer["cursor"]))], shown)
        yield shown.of(_lines_of(answer), answer["cursor"])


def _ask(server: Endpoint, query: list[tuple[str, Any]], shown: _Lines) -> Row:
    try:
        answer: Row = server.get(f"/admin/v1/logs?{urlencode(query)}")
    except Refused as error:
        if error.status != 404:
            raise
        shown.check(False)
        answer = {"lines": [], "cursor": {}}
    return answer


def _lines_of(answer: Row) -> list[Line]:
    return [Line(*line) for line in answer["lines"]]


class _Lines:
    """Which files, and how their lines look, by the flags."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._asked: list[str] = args.names
        self._unknown: list[str] = []
        self._count: int = args.lines
        self._is_json = wants_json(args)
        self.is_access: bool = args.access
        self.follows: bool = args.follow
        self.names = [name for asked in args.names for name in self._names(args, asked)]
        is_searched = args.access and args.names
        self.looked_at: int = SEARCHED if is_searched else args.lines  # of the last lines

    def files(self, folder: Path) -> list[Path]:
        return [folder / ACCESS] if self.is_access else logs_of(folder, self.names)

    def check(self, is_there: bool) -> None:
        """Raises CliError when what was asked for has no log, unless it may come."""
        if not is_there and self._asked and not self.follows:
            raise CliError(f"no logs of {', '.join(self._asked)}")

    def last(self, lines: list[Line], cursor: Cursor) -> Lines:
        """The first ones to show. Raises CliError when they are none, and never will be any."""
        found = self.of(lines, cursor)
        if self.is_access and not found and self._unknown and not self.follows:
            raise CliError(f"no requests of {', '.join(self._unknown)}")
        return found[-self._count :] if self._count else []

    def of(self, lines: list[Line], cursor: Cursor) -> Lines:
        """`cursor` knows all the files, those too that say nothing now."""
        if self.is_access:
            texts = [line.text for line in lines if is_about(line.text, self.names)]
            return [*map(_request, texts)] if self._is_json else texts
        if self._is_json:
            return [_row(line) for line in lines]
        owners = {owner_of(Path(name)) for name in cursor}
        width = max(map(len, owners), default=0) if len(owners) > 1 else 0
        return [_prefixed(line, width) for line in lines]

    def _names(self, args: argparse.Namespace, asked: str) -> list[str]:
        """What lines call it: for a model's alias its name, and those with its adapters."""
        if args.name or args.run_dir:  # another server than the one that could be asked
            return [asked]
        server, word = admin(args), quote(asked, safe="")
        try:
            model = server.get(f"{MODELS}/{word}")
            return [asked, model["name"], *(f"{model['name']}:{a}" for a in model["adapters"])]
        except Unreachable:
            return [asked]
        except Refused:
            pass
        try:
            server.get(f"{INSTANCES}/{word}")
        except Refused:
            self._unknown.append(asked)
        return [asked]


def _row(line: Line) -> Row:
    return {"process": line.owner, "time": stamp_of(line.text), "line": line.text}


def _request(line: str) -> Row:
    """Of a line that a full disk has cut only the text is told."""
    try:
        return fields_of(line)
    except ValueError:
        return {"line": line}


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
