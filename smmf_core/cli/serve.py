"""`smmf serve`: starts the server and shows what happens until it ends.

Owns the verb's flags and its output; must not decide what runs (controller does).
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import Any, TextIO

from smmf_core.config import ModelFlags, load_models, load_server
from smmf_core.controller.main import run as run_controller
from smmf_core.controller.shell import ControllerShell
from smmf_core.environments.interpreter import is_installed
from smmf_core.lifecycle import BACKOFF, FAILED, READY, Child

_OVERRIDES = {  # flag -> key of smmf.toml
    "host": "server.host",
    "port": "server.port",
    "admin_host": "server.admin_host",
    "admin_port": "server.admin_port",
    "routers": "server.routers",
    "name": "server.name",
    "run_dir": "server.run_dir",
    "log_level": "log.level",
}


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("serve", help="start the server with models")
    parser.add_argument(
        "target", nargs="*", metavar="TARGET",
        help="a .toml file, a folder of them, a Hugging Face folder, a .gguf file; none: the demo",
    )  # fmt: skip
    parser.add_argument("--config", metavar="FILE", help="the server's settings (smmf.toml)")
    parser.add_argument("--host", help="address of the inference API (127.0.0.1)")
    parser.add_argument("--port", type=int, help="its port (8000)")
    parser.add_argument("--admin-host", help="address of the admin API (127.0.0.1)")
    parser.add_argument("--admin-port", type=int, help="its port (8001)")
    parser.add_argument("--routers", type=int, help="processes that answer HTTP (1)")
    parser.add_argument("--name", help="names the server among others of this user (default)")
    parser.add_argument("--run-dir", help="where its sockets and logs are")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"))
    parser.add_argument(
        "--api-key", action="append", default=[], metavar="KEY", help="clients must send one"
    )
    one = parser.add_argument_group("for a folder, or the demo model")
    one.add_argument("--backend", help="engine")
    one.add_argument("--served-model-name", nargs="+", default=[], metavar="NAME")
    one.add_argument("--max-model-len", type=int, metavar="N", help="context length")
    one.add_argument("--replicas", type=int, metavar="N")


def run(args: argparse.Namespace) -> int:
    overrides = {key: getattr(args, flag) for flag, key in _OVERRIDES.items()}
    overrides["server.api_keys"] = args.api_key or None
    config = load_server(args.config, overrides)
    flags = ModelFlags(args.backend, args.served_model_name, args.max_model_len, args.replicas)
    models = load_models(args.target or config.models, flags, is_installed)
    return run_controller(config, models, Progress(sys.stdout, sys.stderr))


class Progress:
    """A line per change while models load, rewritten in place on a terminal; then the endpoint."""

    def __init__(self, out: TextIO, progress: TextIO) -> None:
        self._out = out  # for programs: the one line with the endpoint
        self._progress = progress  # for people
        self._lines = 0  # of the table on the terminal
        self._is_ready = False

    def changed(self, shell: ControllerShell, child: Child, former: str) -> None:
        is_trouble = child.state in (BACKOFF, FAILED)
        if is_trouble or (self._is_ready and child.state == READY):
            self._erase()
            reason = f": {child.reason}" if child.reason else ""
            self._say(f"smmf: {child.name} {_WORDS.get(child.state, child.state)}{reason}")
        if not self._is_ready:
            self._show(shell)

    def ready(self, shell: ControllerShell) -> None:
        server = shell.config.server
        self._erase()
        self._is_ready = True
        names = ", ".join(_ready_names(shell))
        endpoint = f"http://{_address(server.host)}:{server.port}/v1"
        admin = f"http://{_address(server.admin_host)}:{server.admin_port}"
        self._write(self._out, f"smmf: ready on {endpoint} (models: {names}; admin {admin})\n")

    def failed(self, shell: ControllerShell) -> None:
        self._erase()
        self._is_ready = True
        self._say(f"smmf: no model is ready; logs are in {shell.run_dir.logs}")

    def _show(self, shell: ControllerShell) -> None:
        from smmf_core.cli.table import table

        if not self._progress.isatty():
            return
        self._erase()
        rows = [[c.name, c.state, c.reason] for c in shell.core.workers() if c.wanted]
        lines = table(["INSTANCE", "STATE", ""], rows[:_TABLE_ROWS]).splitlines()
        self._say("\n".join(lines))
        self._lines = len(lines)

    def _erase(self) -> None:
        if self._lines:
            self._write(self._progress, f"\x1b[{self._lines}A\x1b[J")
            self._lines = 0

    def _say(self, text: str) -> None:
        self._write(self._progress, text + "\n")

    def _write(self, out: TextIO, text: str) -> None:
        with contextlib.suppress(OSError):  # nobody reads any more; the server goes on
            out.write(text)
            out.flush()


_TABLE_ROWS = 20  # more would scroll, and could not be rewritten
_WORDS = {BACKOFF: "ended, starts again", FAILED: "failed", READY: "is ready"}


def _ready_names(shell: ControllerShell) -> list[str]:
    core = shell.core
    replicas = core.replicas_by_model()
    return [m.name for m in core.registry if core.state_of(replicas[m.index])[0] == "ready"]


def _address(host: str) -> str:
    return f"[{host}]" if ":" in host else host
