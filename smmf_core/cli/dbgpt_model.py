"""`smmf model list|start|stop|restart|chat`: DB-GPT's verbs with its flags, said to our admin API.

Owns the translation of its names; what a verb does is the server's to know.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from smmf_core.cli.http import CliError, Endpoint, add_json_flag, admin, wants_json
from smmf_core.cli.lifecycle import MODELS, path_of
from smmf_core.cli.table import print_json, show_table
from smmf_core.cli.waiting import act

TASKS = {"llm": "generate", "text2vec": "embed", "reranker": "rerank"}  # by its worker types
_LISTS = {"llm": "llms", "text2vec": "embeddings", "reranker": "rerankers"}
_TYPES = {task: kind for kind, task in TASKS.items()}
DEFAULT_PROVIDER = "hf"  # DB-GPT's own
_COLUMNS = ("model_name", "model_type", "host", "port", "healthy", "enabled", "instance", "state")
_OUT = ("offline", "stopped", "stopping")  # the operator's word
Row = dict[str, Any]


def add_parser(subparsers: Any) -> None:
    model = subparsers.add_parser("model", help="DB-GPT's model verbs")
    model.add_argument("--address", metavar="URL", help="admin API (CONTROLLER_ADDRESS, SMMF_URL)")
    actions = model.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = _add(actions, "list", "instances of all models", is_named=False)
    add_json_flag(listing)
    start = _add(actions, "start", "start a model; with --provider or --model_path a new one")
    _add_address(start)
    for flags, about in _SETTINGS.items():
        start.add_argument(*flags, help=about)
    _add_address(_add(actions, "stop", "drain and stop a model"))
    _add_address(_add(actions, "restart", "restart a model, one replica after the other"))
    chat = _add(actions, "chat", "talk to a model")
    chat.add_argument("--system", metavar="TEXT", help="the system message")


_SETTINGS = {  # of a model that is not registered yet, as in DB-GPT's files
    ("--provider",): "hf (the default), vllm, llama.cpp, mlx, proxy/openai ...",
    ("--model_path", "--path"): "a local model's files",
    ("--device",): "cpu, cuda ...",
    ("--context_length",): "tokens",
    ("--concurrency",): "requests at once",
    ("--backend",): "a remote model's own name",
    ("--api_base",): "a remote provider's address",
    ("--api_key",): "its key, best as '${env:NAME}'",
}
_NUMBERS = ("context_length", "concurrency")


def _add(actions: Any, action: str, about: str, is_named: bool = True) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(action, help=about)
    parser.add_argument(
        "-m", "--model_name", "--model-name", required=is_named, metavar="NAME", help="which"
    )
    parser.add_argument(
        "--model_type", "--model-type", "--worker_type", choices=tuple(TASKS), help="what it is for"
    )
    parser.add_argument("--url", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def _add_address(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", help="as `smmf model list` shows it")
    parser.add_argument("--port", type=int, help="as `smmf model list` shows it")


def run(args: argparse.Namespace) -> int:
    server = _server(args)
    if args.action == "list":
        _list(server, args)
    elif args.action == "chat":
        _chat(server, args)
    else:
        _check_address(server, args)
        if args.action == "start" and _is_described(args) and not _find(server, args.model_name):
            answer = act(server, MODELS, _registration(args))
        else:
            name = _named(server, args)["name"]
            answer = act(server, path_of(MODELS, name, args.action), {})
        print(answer["message"])
    return 0


def _is_described(args: argparse.Namespace) -> bool:
    """Whether the flags are enough to register it."""
    return bool(args.provider or args.model_path)


def _server(args: argparse.Namespace) -> Endpoint:
    """`--address` may name several controllers in a row: here there is one."""
    address = args.address or os.environ.get("CONTROLLER_ADDRESS", "")
    if address and not getattr(args, "url", None):
        return Endpoint(address.partition(",")[0].strip())
    return admin(args)


def _find(server: Endpoint, name: str) -> Row | None:
    models: list[Row] = server.get(MODELS)
    return next((m for m in models if name in (m["name"], *m["aliases"])), None)


def _named(server: Endpoint, args: argparse.Namespace) -> Row:
    """The model that the flags mean. Raises CliError."""
    model = _find(server, args.model_name)
    if model is None:
        raise CliError(f"no model named {args.model_name}; `smmf model list` shows them")
    if args.model_type and TASKS[args.model_type] != model["task"]:
        raise CliError(f"{model['name']} is no {args.model_type}: it is for {model['task']}")
    return model


def _check_address(server: Endpoint, args: argparse.Namespace) -> None:
    """There, a worker has an address; here all models have the Router's."""
    host, port = _address(server)
    if args.port not in (None, port) or args.host not in (None, "127.0.0.1", "localhost", host):
        asked = f"{args.host or host}:{args.port or port}"
        raise CliError(f"no model at {asked}: this server answers at {host}:{port}")


def _address(server: Endpoint) -> tuple[str, int]:
    split = urlsplit(server.get("/admin/v1/health")["inference_url"])
    return split.hostname or "", split.port or 80


# --- list ---


def _list(server: Endpoint, args: argparse.Namespace) -> None:
    host, port = _address(server)
    instances: dict[str, list[Row]] = {}
    for instance in server.get("/admin/v1/instances"):
        instances.setdefault(instance["model"], []).append(instance)
    rows = [
        _row(model, instance, host, port)
        for model in server.get(MODELS)
        if _is_asked_for(model, args)
        for instance in instances.get(model["name"], [{}])
    ]
    if not rows and args.model_name:
        _named(server, args)  # says why
    if wants_json(args):
        print_json(rows)
    else:
        headings = [column.upper().replace("_", " ") for column in _COLUMNS]
        show_table(headings, [[row[column] for column in _COLUMNS] for row in rows])


def _is_asked_for(model: Row, args: argparse.Namespace) -> bool:
    names = (None, model["name"], *(f"{alias}" for alias in model["aliases"]))
    return args.model_name in names and (
        args.model_type is None or TASKS[args.model_type] == model["task"]
    )


def _row(model: Row, instance: Row, host: str, port: int) -> Row:
    """A model without a process has a row, too: its first request may load it."""
    state = instance.get("state") or model["status"]
    return {
        "model_name": model["name"],
        "model_type": _TYPES.get(model["task"], model["task"]),
        "host": host,
        "port": port,
        "healthy": state == "ready",
        "enabled": state not in _OUT and model["status"] not in _OUT,
        "instance": instance.get("id", ""),
        "state": state,
    }


# --- start, chat ---


def _registration(args: argparse.Namespace) -> Row:
    """The model as a file of DB-GPT's, in the form that the admin API takes."""
    kind = args.model_type or "llm"
    entry: Row = {"name": args.model_name, "provider": args.provider or DEFAULT_PROVIDER}
    for flags in _SETTINGS:
        key = flags[-1].removeprefix("--")
        value = getattr(args, flags[0].removeprefix("--"))
        if value is not None and key != "provider":
            entry[key] = _number(key, value) if key in _NUMBERS else value
    if "path" in entry:
        entry["path"] = str(Path(entry["path"]).expanduser().resolve())
    return {"config": {"models": {_LISTS[kind]: [entry]}}, "source": "smmf model start"}


def _number(key: str, text: str) -> int:
    if not text.isdecimal():
        raise CliError(f"--{key} is not a number: {text}")
    return int(text)


def _chat(server: Endpoint, args: argparse.Namespace) -> None:
    from smmf_core.cli.chat import talk

    args.model, args.prompt = _named(server, args)["name"], None
    args.temperature = args.max_tokens = None
    talk(server, args)
