"""`smmf events`: what has changed its state, and why; `-f` goes on as it happens.

Owns a line's look; what is an event is the server's to say.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any
from urllib.parse import urlencode

from smmf_core.cli.http import Endpoint, add_flags, admin, wants_json
from smmf_core.cli.numbers import count
from smmf_core.cli.table import print_json, state_style

LIMIT = 100
WAIT_S = 20.0  # of one request for the next event; shorter than a request's time-out
_ID_WIDTH = 16
_STATE_WIDTH = 10
Event = dict[str, Any]


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("events", help="changes of state, and why")
    parser.add_argument("model", nargs="?", metavar="MODEL|INSTANCE", help="only of this one")
    parser.add_argument("-f", "--follow", action="store_true", help="go on as they happen")
    parser.add_argument(
        "-n", "--limit", type=count, default=LIMIT, metavar="N", help=f"how many ({LIMIT}; 0: all)"
    )
    add_flags(parser)


def run(args: argparse.Namespace) -> int:
    server = admin(args)
    events = _fetch(server, args, 0.0, 0.0)
    if wants_json(args) and not args.follow:
        print_json(events)
        return 0
    _print(events, args)
    last = 0.0
    while args.follow:
        last = events[-1]["time"] if events else last
        events = _fetch(server, args, last, WAIT_S)
        _print(events, args)
    return 0


def _fetch(server: Endpoint, args: argparse.Namespace, since: float, wait_s: float) -> list[Event]:
    query: Event = {"since": repr(since), "wait_s": wait_s}
    if not since:
        query["limit"] = args.limit
    if args.model:
        query |= {"model": args.model, "instance": args.model}
    events: list[Event] = server.get(f"/admin/v1/events?{urlencode(query)}")
    return events


def _print(events: list[Event], args: argparse.Namespace) -> None:
    for event in events:
        print(json.dumps(event, ensure_ascii=False) if wants_json(args) else line(event))
    sys.stdout.flush()


def line(event: Event) -> str:
    """`TIME ID STATE REASON`, in local time; the state in its colour on a terminal."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["time"]))
    milliseconds = int(1000 * (event["time"] % 1))
    state = coloured(event["state"].ljust(_STATE_WIDTH), state_style(event["state"]))
    reason = event["reason"]
    return f"{when}.{milliseconds:03} {event['id'].ljust(_ID_WIDTH)} {state} {reason}".rstrip()


_CODES = {"red": 31, "green": 32, "yellow": 33, "bold": 1, "dim": 2}


def coloured(text: str, style: str) -> str:
    """By rich's words for a style; plain where nobody sees colours."""
    if not style or not sys.stdout.isatty():
        return text
    codes = ";".join(str(_CODES[word]) for word in style.split())
    return f"\x1b[{codes}m{text}\x1b[0m"
