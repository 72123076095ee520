"""Verbs that change what a model or an instance is wanted to be: start, stop, restart, scale ...

Each returns when the state is reached, or fails with the server's reason. Owns the flags; what a
verb means is the server's to know.
"""

from __future__ import annotations

import argparse
from typing import Any
from urllib.parse import quote

from smmf_core.cli.http import CliError, Endpoint, Refused, add_flags, admin, wants_json
from smmf_core.cli.numbers import count, positive, seconds
from smmf_core.cli.table import print_json
from smmf_core.cli.waiting import act
from smmf_core.config.problems import nearest

MODELS, INSTANCES = "/admin/v1/models", "/admin/v1/instances"
BOTH = "MODEL|INSTANCE"
_OF_BOTH = ("start", "stop", "restart")
_OF_INSTANCES = ("online", "offline")
Row = dict[str, Any]


def add_parser(subparsers: Any) -> None:
    start = _add(subparsers, "start", "start a model or an instance", BOTH)
    start.add_argument("--replicas", type=positive, metavar="N", help="as `scale` would set it")
    _add_wait(start)
    stop = _add(subparsers, "stop", "drain and stop a model or an instance", BOTH)
    stop.add_argument("--force", action="store_true", help="do not drain")
    stop.add_argument("--timeout", type=seconds, metavar="S", help="seconds that draining may take")
    about = "restart a model, one replica after the other, or an instance"
    _add_wait(_add(subparsers, "restart", about, BOTH))
    scale = _add(subparsers, "scale", "how many replicas a model has", "MODEL")
    scale.add_argument("replicas", metavar="N", type=count)
    _add_wait(scale)
    _add(subparsers, "online", "put an instance into rotation", "INSTANCE")
    about = "take an instance out of rotation without stopping it"
    _add(subparsers, "offline", about, "INSTANCE")
    _add(subparsers, "pin", "never unload a model", "MODEL")
    _add(subparsers, "unpin", "allow it again", "MODEL")


def _add(subparsers: Any, verb: str, about: str, what: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(verb, help=about)
    parser.add_argument("name", metavar=what)
    add_flags(parser)
    return parser


def _add_wait(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-wait", action="store_true", help="do not wait for the state")


def run(args: argparse.Namespace) -> int:
    server = admin(args)
    if args.verb in _OF_BOTH:
        answer = act_on_either(server, args.name, args.verb, _body(args))
    else:
        kind = INSTANCES if args.verb in _OF_INSTANCES else MODELS
        answer = act(server, path_of(kind, args.name, args.verb), _body(args))
    tell(answer, args)
    return 0


def tell(answer: Row, args: argparse.Namespace) -> None:
    """The verb's sentence, or for programs all of it."""
    if wants_json(args):
        print_json(answer)
    else:
        print(answer["message"])


def path_of(kind: str, name: str, verb: str) -> str:
    return f"{kind}/{quote(name, safe='')}:{verb}"


def _body(args: argparse.Namespace) -> Row:
    body: Row = {}
    if getattr(args, "no_wait", False):
        body["wait"] = False
    if getattr(args, "replicas", None) is not None:
        body["replicas"] = args.replicas
    if args.verb == "stop":
        body |= {"force": args.force, "timeout_s": args.timeout}
    return body


def act_on_either(server: Endpoint, name: str, verb: str, body: Row) -> Row:
    """Of a model if there is one of that name, else of an instance."""
    for kind in (MODELS, INSTANCES):
        try:
            answer: Row = act(server, path_of(kind, name, verb), body)
            return answer
        except Refused as error:
            if error.status != 404:
                raise
    raise unknown(server, name)


def unknown(server: Endpoint, name: str) -> CliError:
    """There is neither a model nor an instance of that name."""
    names = [row["name"] for row in server.get(MODELS)]
    names += [row["id"] for row in server.get(INSTANCES)]
    return CliError(f"no model or instance named {name}{nearest(name, names)}")
