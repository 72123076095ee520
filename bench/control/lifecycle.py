"""How long the control plane takes: a crash, a replacement, a start, a thousand models.

Owns the scenarios; all run a real `smmf serve` on the echo engine, except the snapshot, which
times the Controller's and the Router's own functions.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import msgspec

from bench.serve.contestants import Smmf
from bench.serve.scenarios import echo, quantile_ms
from smmf_core.config import Model, ModelConfig, ServerConfig
from smmf_core.control_messages import Registry
from smmf_core.controller.core import ControllerCore
from smmf_core.messages import encode
from smmf_core.native._scheduler import Scheduler
from smmf_core.registry import LiveRegistry
from smmf_core.router.fleet import Fleet

Figures = dict[str, Any]
CRASHES = 40
STARTS = 20
MODELS = 1000
_LIMIT_S = 30.0
_IDLE_S = 0.5


class Watch:
    """A connection to an HTTP server, kept while it is polled."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_LIMIT_S)
        self._used_at = 0.0

    def get(self, path: str) -> bytes:
        return self._call("GET", path)[1]

    def post(self, path: str) -> int:
        return self._call("POST", path)[0]

    def _call(self, method: str, path: str) -> tuple[int, bytes]:
        if time.monotonic() - self._used_at > _IDLE_S:
            self._connection.close()  # the other side may be about to
        self._connection.request(method, path)
        response = self._connection.getresponse()
        body = response.read()
        self._used_at = time.monotonic()
        return response.status, body


def crash() -> Figures:
    """SIGKILL of an idle Worker, again and again: when its Router no longer places on it, and when
    its successor is ready. Its slot's life is long in between, so that no back-off counts."""
    model = echo(slots=64).replace("[optimization]", "replicas = 2\n[optimization]")
    server = Smmf({"echo": model})
    router, admin = Watch(server.port), Watch(server.admin_port)
    out: list[float] = []
    back: list[float] = []
    try:
        for _ in range(CRASHES):
            time.sleep(1.2)  # longer than start_s: a long life
            pid = _pid(admin, "echo-0")
            began = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            _until(lambda: not _is_up(router))
            out.append(time.monotonic() - began)
            _until(lambda: _is_up(router))
            back.append(time.monotonic() - began)
    finally:
        server.stop()
    return {
        "crashes": CRASHES,
        "out_of_rotation_p50_ms": quantile_ms(out, 0.5),
        "out_of_rotation_p99_ms": quantile_ms(out, 0.99),
        "replaced_p50_ms": quantile_ms(back, 0.5),
        "replaced_p99_ms": quantile_ms(back, 0.99),
    }


def start_instance() -> Figures:
    """The admin API's stop and start of an echo model: what a start takes until it is ready."""
    server = Smmf({"echo": echo(slots=64)})
    admin = Watch(server.admin_port)
    times = []
    try:
        for _ in range(STARTS):
            if admin.post("/admin/v1/models/echo:stop") != 200:
                raise RuntimeError("the model does not stop")
            began = time.monotonic()
            if admin.post("/admin/v1/models/echo:start") != 200:
                raise RuntimeError("the model does not start")
            times.append(time.monotonic() - began)
    finally:
        server.stop()
    return {"starts": STARTS, "p50_ms": quantile_ms(times, 0.5), "p99_ms": quantile_ms(times, 0.99)}


def many_models() -> Figures:
    """A thousand registered models: `smmf list` as typed, and the snapshot for the Routers."""
    files = {f"m{n}": _unloaded(f"m{n}") for n in range(MODELS - 1)}
    server = Smmf({"echo": echo(slots=64), **files})
    try:
        command = [sys.executable, "-m", "smmf_core.cli.main", "list"]
        command += ["--url", f"http://127.0.0.1:{server.admin_port}"]
        times = [_timed(command) for _ in range(7)]
    finally:
        server.stop()
    return {"models": MODELS, "list_s": min(times), **_snapshot()}


def _snapshot() -> Figures:
    """Best of 20, in milliseconds: made and encoded by the Controller, taken over by a Router."""
    registry = LiveRegistry()
    for n in range(MODELS):
        registry.add(_config(f"m{n}"), 0)
    core = ControllerCore(ServerConfig(), registry, _Nothing())
    fleet = Fleet(Scheduler())
    decoder = msgspec.msgpack.Decoder(Registry)
    made, taken = [], []
    for _ in range(20):
        began = time.perf_counter()
        encoded = encode(core.registry_message(0.0))
        done = time.perf_counter()
        fleet.update(decoder.decode(encoded))
        made.append(done - began)
        taken.append(time.perf_counter() - done)
    return {
        "snapshot_made_ms": 1000 * min(made),
        "snapshot_taken_ms": 1000 * min(taken),
        "snapshot_bytes": len(encoded),
    }


def _config(name: str) -> ModelConfig:
    return ModelConfig(model=Model(name=name, backend="echo"))


class _Nothing:
    """Effects of a core that starts nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def _unloaded(name: str) -> str:
    return echo(name, slots=64).replace("[deployment]", "[deployment]\nautostart = false")


def _timed(command: list[str]) -> float:
    began = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def _pid(admin: Watch, name: str) -> int:
    """Of an instance that lives."""
    rows = json.loads(admin.get("/admin/v1/instances"))
    pid: int = next(row["pid"] for row in rows if row["id"] == name)
    if pid <= 0:
        raise RuntimeError(f"{name} does not run")
    return pid


def _is_up(router: Watch) -> bool:
    """Whether the Router places requests on echo-0."""
    return b'smmf_instance_up{instance="echo-0",model="echo"} 1' in router.get("/metrics")


def _until(reached: Any) -> None:
    limit = time.monotonic() + _LIMIT_S
    while not reached():
        if time.monotonic() > limit:
            raise RuntimeError("the control plane did not get there")
