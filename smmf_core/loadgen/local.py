"""An `smmf serve` on the echo engine, started for a measurement and ended after it."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType

from smmf_core.loadgen import procfs
from smmf_core.loadgen.exchange import request_bytes
from smmf_core.loadgen.load import Plan

_PORTS = (12_000, 32_000)
_START_S = 60.0
_STOP_S = 30.0
_PATH = "/v1/chat/completions"
_SLOTS = 4096
_FOLDERS = ("XDG_RUNTIME_DIR", "XDG_STATE_HOME")  # its own: nothing is left behind
_chance = random.SystemRandom()


def free_port() -> int:
    """Below those that the kernel gives to who connects (from 32,768): else one of those may have
    it by the time that it is listened on."""
    while True:
        port = _chance.randrange(*_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def status_of(port: int, path: str) -> int:
    """The status of a GET; 0 while nobody listens."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


class LocalServer:
    """`with LocalServer(tokens=128) as server`: its echo model answers so many tokens."""

    def __init__(self, tokens: int, step_ms: float = 0) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="smmf-bench-"))
        model = self._folder / "local-echo.toml"
        model.write_text(
            f'[model]\nname = "echo"\nbackend = "echo"\n[deployment]\nmax_concurrency = {_SLOTS}\n'
            f"[optimization]\nmax_batch_size = {_SLOTS}\nmax_batch_tokens = 10000000\n"
            f"[engine]\ntokens = {tokens}\nstep_ms = {step_ms}\n"
        )
        self.port = free_port()
        ports = ["--port", str(self.port), "--admin-port", str(free_port())]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "smmf_core.cli.main", "serve", str(model), *ports],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **dict.fromkeys(_FOLDERS, str(self._folder))},
        )

    def __enter__(self) -> LocalServer:
        until = time.monotonic() + _START_S
        while status_of(self.port, "/ready") != 200:
            if self._process.poll() is not None or time.monotonic() > until:
                self._stop()
                raise RuntimeError("the server for the measurement did not start")
            time.sleep(0.01)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._stop()

    def plan(self, is_stream: bool, clients: int, total: int) -> Plan:
        body: dict[str, object] = {
            "model": "echo",
            "messages": [{"role": "user", "content": "Please answer with some words."}],
        }
        if is_stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        request = request_bytes(f"127.0.0.1:{self.port}", _PATH, body)
        url = f"http://127.0.0.1:{self.port}{_PATH}"
        return Plan(url, request, is_stream, clients=clients, total=total)

    def cpu_s(self) -> float:
        """CPU seconds of all its processes so far."""
        return procfs.cpu_s(procfs.tree(self._process.pid))

    def _stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
