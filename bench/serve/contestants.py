"""The processes that are measured: SMMF and the two floors, each started and ended by its pid."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import ssl
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from smmf_core.loadgen import procfs
from smmf_core.loadgen.local import free_port

FLOOR = Path(__file__).parent.parent / "floor"
_START_S = 60.0


class Contestant:
    """A server under test. `pids` are all its processes. `trust`: it serves HTTPS."""

    trust: ssl.SSLContext | None = None

    def __init__(self, command: list[str], port: int, environment: dict[str, str]) -> None:
        self.port = port
        self.started_at = time.monotonic()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **environment},
        )

    @property
    def url(self) -> str:
        return f"{'http' if self.trust is None else 'https'}://127.0.0.1:{self.port}"

    @property
    def pids(self) -> list[int]:
        return procfs.tree(self.process.pid)

    def cpu_s(self) -> float:
        return procfs.cpu_s(self.pids)

    def wait(self, is_up: Callable[[], bool], start_s: float = _START_S) -> None:
        until = time.monotonic() + start_s
        while not is_up():
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{self.process.args!r} did not start")
            time.sleep(0.005)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()


class Smmf(Contestant):
    """`smmf serve` on the given model files, in a run directory of its own."""

    def __init__(
        self,
        models: dict[str, str],
        *flags: str,
        start_s: float = _START_S,
        trust: ssl.SSLContext | None = None,
        config: str = "",
    ) -> None:
        """`config`: of smmf.toml."""
        self.trust = trust
        self.folder = Path(tempfile.mkdtemp(prefix="smmf-bench-"))
        targets = []
        for name, text in models.items():
            path = self.folder / f"local-{name}.toml"
            path.write_text(text)
            targets.append(str(path))
        if config:
            (self.folder / "smmf.toml").write_text(config)
            flags = (*flags, "--config", str(self.folder / "smmf.toml"))
        port, self.admin_port = free_port(), free_port()
        ports = ["--port", str(port), "--admin-port", str(self.admin_port)]
        command = [sys.executable, "-m", "smmf_core.cli.main", "serve", *targets, *ports, *flags]
        folders = dict.fromkeys(("XDG_RUNTIME_DIR", "XDG_STATE_HOME"), str(self.folder))
        super().__init__(command, port, folders)
        self.wait(lambda: get(self.url, "/ready", trust)[0] == 200, start_s)
        self.processes()  # answers once the admin API has been imported: a cost of the start

    def processes(self) -> list[dict[str, Any]]:
        url = f"http://127.0.0.1:{self.admin_port}"
        rows: list[dict[str, Any]] = json.loads(get(url, "/admin/v1/instances?all=1")[1])
        return rows

    @property
    def client_address(self) -> str:
        """Of the client library's TCP port."""
        url = f"http://127.0.0.1:{self.admin_port}"
        return str(json.loads(get(url, "/admin/v1/health")[1])["client_address"])

    def stop(self) -> None:
        super().stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class SendLoop(Contestant):
    """The C floor, sending `chunks` to `clients` connections, one step every `step_us`."""

    def __init__(self, chunks: list[bytes], clients: int, step_us: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="smmf-floor-"))
        binary, recorded = self.folder / "send_loop", self.folder / "chunks"
        source = str(FLOOR / "send_loop.cpp")
        subprocess.run(["g++", "-std=c++17", "-O2", "-o", str(binary), source], check=True)
        recorded.write_bytes(b"".join(struct.pack("<I", len(c)) + c for c in chunks))
        port = free_port()
        command = [str(binary), str(port), str(recorded), str(clients), str(step_us)]
        super().__init__(command, port, {})
        self.wait(lambda: _listens(port))

    def stop(self) -> None:
        super().stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class FastApi(Contestant):
    """The Python floor; its flags are fastapi_echo.py's."""

    def __init__(self, tokens: int, *flags: str) -> None:
        port = free_port()
        command = [sys.executable, str(FLOOR / "fastapi_echo.py"), str(port), str(tokens), *flags]
        super().__init__(command, port, {})
        self.wait(lambda: _listens(port))


def get(url: str, path: str, trust: ssl.SSLContext | None = None) -> tuple[int, bytes]:
    """Status and body; status 0 while nobody listens."""
    place = url.partition("://")[2]
    connection = http.client.HTTPConnection(place, timeout=10)
    if trust is not None:
        connection = http.client.HTTPSConnection(place, timeout=10, context=trust)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except OSError:
        return 0, b""
    finally:
        connection.close()


def _listens(port: int) -> bool:
    """Whether the port is bound, without opening a connection that the floor would count."""
    wanted = f"0100007F:{port:04X} 00000000:0000 0A"
    return wanted in Path("/proc/net/tcp").read_text()
