"""`smmf completion SHELL`: a script that completes verbs, flags, files, and names of the server.

Owns which words stand for what; the script is shtab's, from the parser itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import shtab

from smmf_core.cli.main import VERBS, parser_with

SHELLS = ("bash", "zsh", "fish")
_MODELS = shtab.cmd("smmf list --quiet 2>/dev/null")
_INSTANCES = shtab.cmd("smmf ps --quiet 2>/dev/null")
_EITHER = shtab.cmd("smmf list --quiet 2>/dev/null; smmf ps --quiet 2>/dev/null")
COMPLETIONS = {  # what an argument is called in the help -> what may stand there
    "MODEL": _MODELS,
    "INSTANCE": _INSTANCES,
    "MODEL|INSTANCE": _EITHER,
    "KEY_ID": shtab.cmd("smmf keys list --quiet 2>/dev/null"),
    "FILE": shtab.FILE,
    "TARGET": shtab.FILE,
    "PATH": shtab.FILE,
}


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "completion",
        help="shell completion",
        description="Prints a script. bash: `source <(smmf completion bash)`; zsh: write it to a "
        "file _smmf in a folder of $fpath; fish: `smmf completion fish | source`.",
    )
    parser.add_argument("shell", choices=SHELLS)


def run(args: argparse.Namespace) -> int:
    print(script(args.shell))
    return 0


def script(shell: str) -> str:
    parser = parser_with({module for module, _ in VERBS.values()})
    for action in _actions(parser):
        if isinstance(action.choices, dict) and not isinstance(action, argparse._SubParsersAction):
            action.choices = list(action.choices)  # shtab takes a dict for subparsers
        if isinstance(action.metavar, str) and action.metavar in COMPLETIONS:
            action.complete = COMPLETIONS[action.metavar]  # type: ignore[attr-defined]
    return shtab.complete(parser, shell)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Its own, and those of its verbs. argparse has no public way to list them; shtab's neither."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _actions(inner)
