"""The Router process: HTTP and the client library's lane on one side, Workers on the other, one
event loop between.

Nothing blocks. The Scheduler queues requests, the StreamTable bytes of slow clients; the shell owns
open answers, RouterControl the Router's life. Must not tokenise or decide placement.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import resource
import signal
import socket
import sys
import time
from pathlib import Path

import uvloop

from smmf_core import logs
from smmf_core.api.lane import LaneRenderer
from smmf_core.config import ServerConfig
from smmf_core.http.intake import Intake
from smmf_core.http.protocol import HttpProtocol, Limits
from smmf_core.http.routes import Routes
from smmf_core.router.control import RouterControl
from smmf_core.router.lane import Lane
from smmf_core.wire.curve import read_or_make

_TICK_S = 0.25  # time-outs, reconnects; coarse on purpose, exact ones are the Scheduler's
_BACKLOG = 4096  # connections the kernel keeps while a turn runs or the Router restarts
_GC_THRESHOLDS = (50_000, 50, 100)  # requests make no cycles: look for them seldom
_DRAIN_S = 30.0  # after a SIGTERM that did not come from the Controller

_log = logging.getLogger("smmf.router")


async def serve(run_dir: Path, router: int, epoch: int) -> int:
    """Until drained. Time-outs and the control connection are looked at four times a second."""
    listening: list[asyncio.Task[asyncio.Server]] = []
    lanes: list[Lane] = []

    def listen(listeners: list[socket.socket]) -> None:
        listening.append(asyncio.create_task(_open(listeners, control, run_dir, lanes)))

    control = RouterControl(run_dir, router, epoch, listen)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, control.drain, _DRAIN_S)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the Controller's
    while not control.ended.is_set():
        control.tick(time.monotonic())
        for lane in lanes:
            lane.on_tick(time.monotonic())
            if control.is_draining:
                lane.begin_drain()
        if listening and listening[0].done() and control.is_draining:
            listening[0].result().close()
        elif listening and listening[0].done() and (error := listening[0].exception()):
            _log.error("cannot listen: %s", error)
            return 1
        try:
            await asyncio.wait_for(control.ended.wait(), _TICK_S)
        except TimeoutError:
            continue
    for lane in lanes:
        lane.close()
    return 0


async def _open(
    listeners: list[socket.socket], control: RouterControl, run_dir: Path, lanes: list[Lane]
) -> asyncio.Server:
    """Lanes first: the Router is ready once HTTP is."""
    assert control.shell is not None
    body_bytes = int(control.shell.config.server.max_body_mb * (1 << 20))
    on_path = Lane(body_bytes, time.monotonic)
    on_path.socket.bind(_lane_path(run_dir, control))
    lanes.append(on_path)
    for listener in listeners[1:]:
        on_tcp = Lane(body_bytes, time.monotonic)
        on_tcp.socket.serve(listener, _secret_key(control.shell.config))
        lanes.append(on_tcp)
    for lane in lanes:
        lane.open(Routes(control.shell, control.shell.config, Intake(control.shell, LaneRenderer)))
    return await _listen(listeners[0], control, Limits(body_bytes=body_bytes))


def _lane_path(run_dir: Path, control: RouterControl) -> Path:
    for stale in run_dir.glob(f"client-{control.router}-*.sock"):
        stale.unlink(missing_ok=True)
    return run_dir / f"client-{control.router}-{control.epoch}.sock"


def _secret_key(config: ServerConfig) -> bytes:
    return read_or_make(Path(config.server.zmq_key), may_make=False).secret


async def _listen(
    listener: socket.socket, control: RouterControl, limits: Limits
) -> asyncio.Server:
    shell, server = control.shell, control.server
    assert shell is not None
    routes = Routes(shell, shell.config)
    context = control.tls.begin(shell.config.server)
    started = await asyncio.get_running_loop().create_server(
        lambda: HttpProtocol(routes, limits, server),
        sock=listener,
        backlog=_BACKLOG,
        ssl=context,
        ssl_handshake_timeout=limits.header_timeout_s if context else None,
        ssl_shutdown_timeout=limits.idle_timeout_s if context else None,  # HttpProtocol's rule
    )
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    control.listening()
    return started


def _raise_descriptor_limit() -> None:
    """As many connections as the system allows this process."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> int:
    parser = argparse.ArgumentParser(prog="smmf-router")
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--id", type=int, required=True)
    parser.add_argument("--epoch", type=int, required=True)
    args = parser.parse_args()
    logs.set_up()
    _raise_descriptor_limit()
    code: int = uvloop.run(serve(args.run_dir, args.id, args.epoch))
    return code


if __name__ == "__main__":
    sys.exit(main())
