"""The `smmf` command: finds the verb, loads only its module, turns errors into one line.

Owns exit codes and the list of verbs; must not do a verb's work.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from smmf_core import __version__

VERBS = {  # verb -> (module, what it does)
    "serve": ("serve", "start the server with models"),
    "list": ("show", "registered models"),
    "show": ("show", "all about one model"),
    "ps": ("show", "running instances"),
    "stop": ("stop", "drain and stop a model or an instance"),
    "shutdown": ("stop", "stop the whole server"),
    "adapter": ("adapter", "load or unload LoRA adapters"),
    "chat": ("chat", "talk to a model"),
    "check": ("check", "validate configuration files"),
    "doctor": ("doctor", "what is installed and works here"),
    "engines": ("engines", "engines and their environments"),
    "bench": ("bench", "measure an endpoint"),
}
OK, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit code: 0 ok, 1 failed, 2 wrong use."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser(_verb_of(arguments))
    args = parser.parse_args(arguments)
    if args.verb is None:
        parser.print_help(sys.stderr)
        return WRONG_USE
    return _run(args)


def _verb_of(arguments: list[str]) -> str | None:
    return next((word for word in arguments if word in VERBS), None)


def _parser(verb: str | None) -> argparse.ArgumentParser:
    """The parser with the flags of one verb; the others are only named."""
    parser = argparse.ArgumentParser(
        prog="smmf",
        description="One OpenAI-compatible endpoint over many models, engines and replicas.",
        epilog="`smmf VERB --help` tells a verb's flags. Environment: SMMF_URL, SMMF_API_KEY.",
    )
    parser.add_argument("--version", action="version", version=f"smmf {__version__}")
    parser.add_argument("--url", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    done = set()
    for name, (module, about) in VERBS.items():
        if verb is None or VERBS[verb][0] != module:
            verbs.add_parser(name, help=about)
        elif module not in done:
            done.add(module)
            import_module(f"smmf_core.cli.{module}").add_parser(verbs)
    return parser


def _run(args: argparse.Namespace) -> int:
    from smmf_core.errors import ConfigError, ControlError

    module = import_module(f"smmf_core.cli.{VERBS[args.verb][0]}")
    try:
        code: int | None = module.run(args)
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
