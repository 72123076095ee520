"""`smmf serve`: starts the server and shows what happens until it ends.

Owns the verb's flags and its output; must not decide what runs (controller does).
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

from smmf_core.config import ModelFlags
from smmf_core.config.addresses import admin_url, client_address, inference_url
from smmf_core.config.load import Sources
from smmf_core.controller.main import run as run_controller
from smmf_core.controller.shell import ControllerShell
from smmf_core.controller.sources import read
from smmf_core.lifecycle import BACKOFF, FAILED, LOADING, READY, Child
from smmf_core.registry import Model

if TYPE_CHECKING:
    from smmf_core.cli.bars import Bars

_OVERRIDES = {  # flag -> key of smmf.toml
    "host": "server.host",
    "port": "server.port",
    "admin_host": "server.admin_host",
    "admin_port": "server.admin_port",
    "routers": "server.routers",
    "name": "server.name",
    "run_dir": "server.run_dir",
    "log_level": "log.level",
    "no_auth": "server.no_auth",
    "ssl_certfile": "server.tls_cert",
    "ssl_keyfile": "server.tls_key",
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
    parser.add_argument(
        "--no-auth", action="store_true", default=None,
        help="serve other machines without any key",
    )  # fmt: skip
    parser.add_argument("--ssl-certfile", metavar="PEM", help="certificate: serve HTTPS")
    parser.add_argument("--ssl-keyfile", metavar="PEM", help="its key")
    one = parser.add_argument_group("for a folder, or the demo model")
    one.add_argument("--backend", help="engine")
    one.add_argument("--served-model-name", nargs="+", default=[], metavar="NAME")
    one.add_argument("--max-model-len", type=int, metavar="N", help="context length")
    one.add_argument("--replicas", type=int, metavar="N")


def run(args: argparse.Namespace) -> int:
    overrides = {key: getattr(args, flag) for flag, key in _OVERRIDES.items()}
    overrides["server.api_keys"] = args.api_key or None
    flags = ModelFlags(args.backend, args.served_model_name, args.max_model_len, args.replicas)
    sources = Sources(args.config, overrides, args.target, flags)
    config, found = read(sources)
    progress = Progress(sys.stdout, sys.stderr)
    try:
        return run_controller(config, found, progress, sources)
    finally:
        progress.close()


class Progress:
    """Bars while models load, on a terminal; a line per trouble; at last the endpoint."""

    def __init__(self, out: TextIO, progress: TextIO) -> None:
        self._out = out  # for programs: the one line with the endpoint
        self._progress = progress  # for people
        self._began = time.monotonic()
        self._bars: Bars | None = None
        self._is_ready = False
        self._is_store_told = False

    def changed(self, shell: ControllerShell, child: Child, former: str) -> None:
        is_trouble = child.state in (BACKOFF, FAILED)
        if is_trouble or (self._is_ready and child.state == READY and child.total_restarts):
            reason = f": {child.reason}" if child.reason else ""
            self._say(f"smmf: {child.name} {_WORDS.get(child.state, child.state)}{reason}")
        self.ticked(shell)

    def ticked(self, shell: ControllerShell) -> None:
        self._look_at_store(shell)
        is_early = time.monotonic() - self._began < QUIET_S
        if self._is_ready or is_early or not self._progress.isatty():
            return
        from smmf_core.cli.bars import Bars

        if self._bars is None:
            self._bars = Bars(self._progress)
        with contextlib.suppress(OSError):
            self._bars.show([_bar_row(c) for c in shell.core.workers() if c.wanted])

    def _look_at_store(self, shell: ControllerShell) -> None:
        if shell.store is None or self._is_store_told or shell.store.state.is_available:
            return
        self._is_store_told = True
        self._say(f"smmf: {shell.store.state.in_words()}")

    def ready(self, shell: ControllerShell) -> None:
        server = shell.config.server
        self.close()
        endpoint, admin = f"{inference_url(server)}/v1", admin_url(server)
        models = "; ".join(_models_in_words(shell))
        self._write(self._out, f"smmf: ready on {endpoint} ({models}; admin {admin})\n")
        if address := client_address(server, shell.ports.public_key):
            self._write(self._out, f"smmf: client library on {address}\n")
        self._tell_reasons(shell)

    def failed(self, shell: ControllerShell) -> None:
        self.close()
        self._say(f"smmf: no model is ready; logs are in {shell.run_dir.logs}")
        self._tell_reasons(shell)

    def _tell_reasons(self, shell: ControllerShell) -> None:
        """Of models that are not as their files want them: by what an operator said before."""
        words = [_word_on(shell, model) for model in shell.core.registry]
        for word in list(filter(None, words))[:MAX_NAMES]:
            self._say(f"smmf: {word}")

    def close(self) -> None:
        """No more bars."""
        self._erase()
        self._is_ready = True

    def _erase(self) -> None:
        if self._bars is not None:
            with contextlib.suppress(OSError):
                self._bars.close()
            self._bars = None

    def _say(self, text: str) -> None:
        self._erase()
        self._write(self._progress, text + "\n")

    def _write(self, out: TextIO, text: str) -> None:
        with contextlib.suppress(OSError):  # nobody reads any more; the server goes on
            out.write(text)
            out.flush()


def _in_short(names: list[str]) -> str:
    rest = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {rest} more" if rest > 0 else "")


MAX_NAMES = 20  # in the one line with the endpoint
QUIET_S = 0.3  # models that load so fast need no bars
_WORDS = {BACKOFF: "ended, starts again", FAILED: "failed", READY: "is ready"}


def _bar_row(child: Child) -> dict[str, Any]:
    progress = child.progress if child.state == LOADING else None
    reason, phase = child.reason, child.phase
    return {
        "id": child.name,
        "state": child.state,
        "phase": phase,
        "progress": progress,
        "reason": reason,
    }


def _models_in_words(shell: ControllerShell) -> Iterator[str]:
    """Those that answer now, and how many their first request loads."""
    states = {model.name: shell.core.status_of(model).state for model in shell.core.registry}
    loaded = [name for name, state in states.items() if state in ("ready", "unhealthy")]
    if loaded:
        yield f"models: {_in_short(loaded)}"
    waiting = sum(state == "registered" for state in states.values())
    if waiting:
        what = "" if loaded else " model" if waiting == 1 else " models"
        verb = "loads on its" if waiting == 1 else "load on their"
        yield f"{waiting}{what} {verb} first request"


def _word_on(shell: ControllerShell, model: Model) -> str:
    """ "": it is as wanted, or has failed, which was told when it did."""
    status = shell.core.status_of(model)
    if status.state == "stopped":
        command = f"start {model.name}" if model.target else f"scale {model.name} N"
        return f"{model.name} is stopped ({status.reason}); `smmf {command}` starts it"
    if status.state == "starting":
        return f"{model.name} is not loaded: {status.reason}"
    replicas = shell.core.replicas(model)
    offline = [child.name for child in replicas if child.wanted and child.is_offline]
    if offline:
        return f"{', '.join(offline)}: offline; `smmf online INSTANCE` puts it into rotation"
    return ""
