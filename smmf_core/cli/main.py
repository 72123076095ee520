"""The `smmf` command: finds the verb, loads only its module, turns errors into one line.

Owns exit codes and the list of verbs; must not do a verb's work.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Container, Sequence
from importlib import import_module
from typing import Any, NoReturn

from smmf_core import __version__

VERBS = {  # verb -> (module, what it does)
    "serve": ("serve", "start the server with models"),
    "list": ("show", "registered models"),
    "show": ("show", "all about one model"),
    "ps": ("show", "running instances"),
    "add": ("add", "register models"),
    "rm": ("add", "unregister a model"),
    "alias": ("add", "point an alias at a model"),
    "reload": ("add", "read the configuration files again"),
    "start": ("lifecycle", "start a model or an instance"),
    "stop": ("lifecycle", "drain and stop a model or an instance"),
    "restart": ("lifecycle", "restart a model, one replica after the other, or an instance"),
    "scale": ("lifecycle", "how many replicas a model has"),
    "online": ("lifecycle", "put an instance into rotation"),
    "offline": ("lifecycle", "take an instance out of rotation without stopping it"),
    "pin": ("lifecycle", "never unload a model"),
    "unpin": ("lifecycle", "allow it again"),
    "shutdown": ("shutdown", "stop the whole server"),
    "debug": ("debug", "live state of an instance"),
    "logs": ("logs", "what processes have said"),
    "events": ("events", "changes of state, and why"),
    "top": ("top", "live table of instances"),
    "adapter": ("adapter", "load or unload LoRA adapters"),
    "chat": ("chat", "talk to a model"),
    "run": ("chat", "load a model and talk to it"),
    "keys": ("keys", "API keys: make, list, revoke"),
    "usage": ("usage", "requests and tokens per key and model"),
    "check": ("check", "validate configuration files"),
    "doctor": ("doctor", "what is installed and works here"),
    "engines": ("engines", "engines and their environments"),
    "bench": ("bench", "measure an endpoint"),
    "model": ("dbgpt_model", "DB-GPT's model verbs"),
    "completion": ("completion", "shell completion"),
}
OK, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130
_VALUED = ("--url",)  # flags that may stand before the verb, and take a word


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit code: 0 ok, 1 failed, 2 wrong use."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    word = _first_word(arguments)
    if word is not None and word not in VERBS:
        return _unknown(word)
    if word is None:
        parser = parser_with([])
        parser.parse_args(arguments)  # --help and --version end here
        parser.print_help(sys.stderr)
        return WRONG_USE
    if word == "start" and any(map(_names_file, arguments)):
        return _run("dbgpt", _dbgpt_parser().parse_args(arguments))
    module = VERBS[word][0]
    return _run(module, parser_with([module]).parse_args(arguments))


def parser_with(modules: Container[str]) -> argparse.ArgumentParser:
    """The parser with the flags of these modules' verbs; the others are only named."""
    parser, verbs = _root()
    done = set()
    for name, (module, about) in VERBS.items():
        if module not in modules:
            verbs.add_parser(name, help=about)
        elif module not in done:
            done.add(module)
            import_module(f"smmf_core.cli.{module}").add_parser(verbs)
    return parser


def _dbgpt_parser() -> argparse.ArgumentParser:
    """`start controller|worker|apiserver -c FILE` is DB-GPT's."""
    parser, verbs = _root()
    import_module("smmf_core.cli.dbgpt").add_roles(verbs)
    return parser


class _Parser(argparse.ArgumentParser):
    """Wrong use is one line, too; the parsers of the verbs are of the same class."""

    def error(self, message: str) -> NoReturn:
        said = message.removeprefix("argument ")
        self.exit(WRONG_USE, f"{self.prog}: {said}; `{self.prog} --help` tells its use\n")


def _root() -> tuple[argparse.ArgumentParser, Any]:
    parser = _Parser(
        prog="smmf",
        description="One OpenAI-compatible endpoint over many models, engines and replicas.",
        epilog="`smmf VERB --help` tells a verb's flags. Environment: SMMF_URL, SMMF_API_KEY.",
    )
    parser.add_argument("--version", action="version", version=f"smmf {__version__}")
    parser.add_argument("--url", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )
    return parser, parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")


def _names_file(argument: str) -> bool:
    return argument in ("-c", "--config") or argument.startswith("--config=")


def _first_word(arguments: list[str]) -> str | None:
    """What stands where the verb belongs."""
    words = iter(arguments)
    for word in words:
        if word in _VALUED:
            next(words, None)
        elif not word.startswith("-"):
            return word
    return None


def _unknown(word: str) -> int:
    from difflib import get_close_matches

    near = get_close_matches(word, VERBS, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else "; `smmf --help` names them"
    print(f"smmf: no verb '{word}'{hint}", file=sys.stderr)
    return WRONG_USE


def _run(module: str, args: argparse.Namespace) -> int:
    from smmf_core.errors import ConfigError, ControlError

    try:
        code: int | None = import_module(f"smmf_core.cli.{module}").run(args)
        sys.stdout.flush()
        return code or OK
    except (ConfigError, ControlError) as error:
        print(f"smmf: {error}", file=sys.stderr)
    except BrokenPipeError:  # the reader of our output left; nothing more can be said to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # a user gets a line, never a traceback
        print(f"smmf: {type(error).__name__}: {error}", file=sys.stderr)
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
