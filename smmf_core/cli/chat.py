"""`smmf chat`: one question, or a conversation, streamed from the inference port; `smmf run` loads
the model first.

Owns the conversation's history; must not know how a model works.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any
from urllib.parse import urlsplit

from smmf_core.cli.http import CliError, Endpoint, Refused, add_flags, admin
from smmf_core.cli.lifecycle import MODELS, path_of
from smmf_core.cli.waiting import act
from smmf_core.config.addresses import in_url
from smmf_core.config.problems import nearest

PROMPT = ">>> "
_EVERYWHERE = ("0.0.0.0", "::")
Message = dict[str, str]


def add_parser(subparsers: Any) -> None:
    _add(subparsers, "chat", "talk to a model")
    _add(subparsers, "run", "load a model and talk to it")


def _add(subparsers: Any, verb: str, about: str) -> None:
    parser = subparsers.add_parser(
        verb,
        help=about,
        description="Without PROMPT: a conversation (/clear forgets it, /exit ends it), or the "
        "prompt from standard input when that is no terminal.",
    )
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("prompt", metavar="PROMPT", nargs="?")
    parser.add_argument("--system", metavar="TEXT", help="the system message")
    parser.add_argument("--temperature", type=float, metavar="T")
    parser.add_argument("--max-tokens", type=int, metavar="N")
    add_flags(parser, json_output=False)


def run(args: argparse.Namespace) -> int:
    server = admin(args)
    if args.verb == "run":
        act(server, path_of(MODELS, args.model, "start"), {})
    talk(server, args)
    return 0


def talk(server: Endpoint, args: argparse.Namespace) -> None:
    """As `smmf chat`: with args.prompt, or what standard input has."""
    try:
        _talk(Chat(inference(server), args), args)
    except Refused as error:
        if error.status != 404:
            raise
        names = [row["name"] for row in server.get(MODELS)]
        raise CliError(f"{str(error).rstrip('.')}{nearest(args.model, names)}") from None


def _talk(chat: Chat, args: argparse.Namespace) -> None:
    if args.prompt is not None:
        chat.ask(args.prompt)
    elif not sys.stdin.isatty():
        chat.ask(sys.stdin.read())
    else:
        _converse(chat)


def inference(server: Endpoint) -> Endpoint:
    """Where requests go; a server that listens everywhere is reached where its admin API is."""
    url = server.get("/admin/v1/health")["inference_url"]
    split = urlsplit(url)
    if split.hostname not in _EVERYWHERE:
        return Endpoint(url)
    return Endpoint(f"{split.scheme}://{in_url(server.host)}:{split.port}")


class Chat:
    """A conversation with one model."""

    def __init__(self, inference: Endpoint, args: argparse.Namespace) -> None:
        self._inference = inference
        self._options: dict[str, Any] = {"model": args.model, "stream": True}
        if args.temperature is not None:
            self._options["temperature"] = args.temperature
        if args.max_tokens is not None:
            self._options["max_tokens"] = args.max_tokens
        self._system = args.system
        self.messages: list[Message] = []
        self.clear()

    def clear(self) -> None:
        self.messages = [{"role": "system", "content": self._system}] if self._system else []

    def ask(self, text: str) -> None:
        """Prints the answer while it comes. A question that fails is not remembered."""
        question = {"role": "user", "content": text}
        parts: list[str] = []
        body = {**self._options, "messages": [*self.messages, question]}
        try:
            for event in self._inference.events("/v1/chat/completions", body):
                parts.append(_text_of(event))
                print(parts[-1], end="", flush=True)
        finally:
            if any(parts):
                print()
        self.messages += [question, {"role": "assistant", "content": "".join(parts)}]


def _text_of(event: dict[str, Any]) -> str:
    if "error" in event:
        raise CliError(event["error"]["message"])
    return "".join(choice["delta"].get("content") or "" for choice in event["choices"])


def _converse(chat: Chat) -> None:
    """Reads lines until /exit or end-of-file; an error or Ctrl-C ends an answer, not the talk."""
    import readline  # noqa: F401  (line editing and history for input())

    while True:
        try:
            line = input(PROMPT).strip()
        except EOFError:
            print()
            return
        if line in ("/exit", "/bye", "/quit"):
            return
        if line in ("/clear", "/reset"):
            chat.clear()
        elif line.startswith("/"):
            print("/clear forgets the conversation, /exit ends it")
        elif line:
            _answer(chat, line)


def _answer(chat: Chat, line: str) -> None:
    try:
        chat.ask(line)
    except KeyboardInterrupt:
        print()
    except CliError as error:
        if isinstance(error, Refused) and error.status == 404:
            raise  # no such model: no question will be answered
        print(f"smmf: {error}", file=sys.stderr)
