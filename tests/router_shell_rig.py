"""A Router's shell with real rings, ZeroMQ sockets and connections; the test is its Workers."""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import socket
import struct
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import uvloop

from smmf_core import control_messages as cm
from smmf_core import messages as m
from smmf_core.config import Server, ServerConfig
from smmf_core.http.protocol import HttpProtocol, Limits, ServerState
from smmf_core.http.routes import Routes
from smmf_core.native import _ring
from smmf_core.native._ring import RingWriter
from smmf_core.router.shell import RouterShell
from smmf_core.wire.requests import WorkerContext, worker_identity

WAIT_S = 20.0
USAGE = struct.pack("4I", 1, 1, 0, 0)
_TAIL_AT, _DATA_AT = 64, 448  # csrc/FORMAT.md


class WorkerEnd:
    """What a Worker has of its Router."""

    def __init__(self, rig: Rig, worker: int) -> None:
        self.worker = worker
        self.memfd = _ring.create(1 << 20, 16)
        self.data_fd, self.space_fd = (os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2))
        self.writer = RingWriter(self.memfd, self.data_fd, self.space_fd)
        self.got: list[m.ToWorker] = []
        fds = [os.dup(fd) for fd in (self.memfd, self.data_fd, self.space_fd)]
        attach = cm.Attach(worker, 1, 0, 1, rig.endpoint, rig.slots)
        rig.shell.attach(attach, [*fds, os.pidfd_open(os.getpid())])
        self.socket = rig.context.connect(rig.endpoint, worker_identity(worker, 1))

    def say_ready(self) -> None:
        self.socket.send([m.Ready(self.worker, 1, 1, 16, 100)])

    async def submit(self, number: int = 0) -> m.Submit:
        """Submit number `number` of those that have come."""

        def has_come() -> bool:
            self.got += self.socket.receive()
            return len(self.submits) > number

        await until(has_come)
        return self.submits[number]

    @property
    def submits(self) -> list[m.Submit]:
        return [message for message in self.got if isinstance(message, m.Submit)]

    def put(self, submit: m.Submit, *records: tuple[int, int, bytes]) -> None:
        rows = [(kind, submit.key, submit.attempt, 0, n, body) for kind, n, body in records]
        assert self.writer.write(rows) == len(rows)

    def corrupt(self) -> None:
        """Publish eight bytes that are no record."""
        with mmap.mmap(self.memfd, 0) as ring:
            tail = int.from_bytes(ring[_TAIL_AT : _TAIL_AT + 8], "little")
            at = _DATA_AT + tail % (1 << 20)
            ring[at : at + 8] = bytes(8)
            ring[_TAIL_AT : _TAIL_AT + 8] = (tail + 8).to_bytes(8, "little")

    def close(self) -> None:
        self.writer.close()
        for fd in (self.memfd, self.data_fd, self.space_fd):
            os.close(fd)


class Client:
    """One HTTP connection to the Router."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    async def ask(self, headers: str = "", **fields: Any) -> None:
        body = json.dumps({"model": "m", "prompt": "x", **fields}).encode()
        head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
        head += f"{headers}Content-Length: {len(body)}\r\n\r\n"
        await asyncio.get_running_loop().sock_sendall(self.sock, head.encode() + body)

    async def read(self, end: bytes) -> bytes:
        """Until `end` has come, or the Router has closed."""
        got = b""
        while end not in got:
            reading = asyncio.get_running_loop().sock_recv(self.sock, 65536)
            part = await asyncio.wait_for(reading, WAIT_S)
            if not part:
                break
            got += part
        return got


class Rig:
    """One Router, its routes, and as many Workers of one model as asked for."""

    def __init__(self, folder: Path, slots: int = 16, max_queue: int = 0) -> None:
        self.slots = slots
        self.max_queue = max_queue
        config = ServerConfig(server=Server())
        self.shell = RouterShell(folder / "router.sock", 1, config)
        self.endpoint = f"ipc://{folder}/router.sock"
        self.context = WorkerContext()
        self.state = ServerState(time.monotonic)
        self.routes = Routes(self.shell, config)
        self.workers: list[WorkerEnd] = []
        self.clients: list[socket.socket] = []

    async def start(self, workers: int = 1) -> list[WorkerEnd]:
        model = cm.ModelEntry(
            index=0, name="m", aliases=[], task="generate", backend="echo", state="ready",
            reason="", created=1, context_length=100, strategy="round_robin",
            max_queue=self.max_queue, max_queue_tokens=0, defaults={}, capabilities=[],
        )  # fmt: skip
        entries = [cm.WorkerEntry(w, 1, 0, f"m-{w}", 1.0, online=True) for w in range(workers)]
        self.shell.core.on_registry(cm.Registry(1, [model], entries))
        self.workers = [WorkerEnd(self, w) for w in range(workers)]
        for worker in self.workers:
            worker.say_ready()
        await until(lambda: len(self.shell.core.fleet.workers) == workers)
        return self.workers

    async def client(self) -> Client:
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        theirs.setblocking(False)
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: HttpProtocol(self.routes, Limits(), self.state), ours
        )
        self.clients.append(theirs)
        return Client(theirs)

    def close(self) -> None:
        for sock in self.clients:
            sock.close()
        for worker in range(len(self.workers)):
            self.shell.detach(worker, 1)
        for end in self.workers:
            end.socket.close()
            end.close()
        self.context.close()
        close(self.shell)


def close(shell: RouterShell) -> None:
    """A Router's process just ends; here its socket must not outlive the test."""
    asyncio.get_running_loop().remove_reader(shell._requests.fd)
    shell._requests.close()


async def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < limit
        await asyncio.sleep(0.002)


Test = Callable[[Rig], Coroutine[Any, Any, None]]


def run_test(folder: Path, test: Test, **options: int) -> None:
    """Run `test` on a Rig with these options, and close it."""

    async def main() -> None:
        rig = Rig(folder, **options)
        try:
            await test(rig)
        finally:
            rig.close()
            await asyncio.sleep(0.01)  # for the transports to close

    uvloop.run(main())


def result(text: str) -> bytes:
    return m.encode(m.Result([m.Choice(text, [1], m.STOP)]))
