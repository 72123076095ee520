"""`smmf start controller -c FILE`: our server as DB-GPT's controller, without models of its own.

Owns what it says when it is up; everything else is `smmf serve`'s.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from smmf_core.cli.http import CliError, Endpoint, Unreachable
from smmf_core.cli.serve import Progress
from smmf_core.config import Server, ServerConfig, load_server, run_directory
from smmf_core.config.addresses import admin_url, is_loopback
from smmf_core.config.kinds import kind_of
from smmf_core.config.targets import read_raw
from smmf_core.controller import process
from smmf_core.controller.main import run
from smmf_core.controller.run_dir import RunDir
from smmf_core.controller.shell import ControllerShell

OUTPUT = "start.log"  # what a controller in the background says, beside its own log
UP_S = 60.0
_POLL_S = 0.05
_HINT = "`smmf start worker -c FILE` adds models"


def serve(args: argparse.Namespace) -> int:
    """Until it is shut down; with `--daemon` until it is up."""
    overrides = {"server.name": args.name, "server.run_dir": args.run_dir}
    config = load_server(args.config, overrides)
    config.models = []
    if kind_of(read_raw(Path(args.config)).table) == "dbgpt":
        _give_up_keys(config.server)
    if args.daemon:
        return _start_behind(args, config)
    progress = _Progress(sys.stdout, sys.stderr)
    try:
        return run(config, [], progress)
    finally:
        progress.close()


def _give_up_keys(server: Server) -> None:
    """They are the API server's, which brings them; DB-GPT's controller has none. Until then only
    this machine may administer, and ask."""
    server.api_keys = []
    if not is_loopback(server.admin_host):
        server.admin_host = Server().admin_host
    if not (server.no_auth or is_loopback(server.host)):
        server.host = Server().host


class _Progress(Progress):
    def failed(self, shell: ControllerShell) -> None:
        """Without models it is not ready, and has not failed."""
        if len(shell.core.registry):
            super().failed(shell)
            return
        self.close()
        print(f"smmf: controller on {admin_url(shell.config.server)}; {_HINT}", flush=True)


def _start_behind(args: argparse.Namespace, config: ServerConfig) -> int:
    """The same without the flag, in a session of its own."""
    output = RunDir(run_directory(config.server)).logs / OUTPUT
    command = [sys.executable, "-m", "smmf_core.cli.main", "start", "controller"]
    command += ["--config", str(Path(args.config).resolve())]
    command += ["--name", args.name] if args.name else []
    command += ["--run-dir", args.run_dir] if args.run_dir else []
    with output.open("ab") as file:
        started = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
    _wait_until_up(started, config.server, output)
    print(f"smmf: controller on {admin_url(config.server)} (pid {started.pid}); {_HINT}")
    return 0


def _wait_until_up(started: subprocess.Popen[bytes], server: Server, output: Path) -> None:
    """Raises CliError with what it said last."""
    found = Endpoint(admin_url(server), next(iter(server.api_keys), ""))
    deadline = time.monotonic() + UP_S
    while time.monotonic() < deadline:
        if started.poll() is not None:
            raise CliError(process.last_line(output).removeprefix("smmf: ") or "it has ended")
        try:
            if found.get("/admin/v1/health")["pid"] == started.pid:
                return
        except Unreachable:
            pass
        time.sleep(_POLL_S)
    raise CliError(f"it is not up after {UP_S:.0f} s; its output is in {output}")
