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

import msgspec
import pytest
import uvloop

from smmf_core import messages as m
from smmf_core.config import Server, ServerConfig
from smmf_core.http.protocol import HttpProtocol, Limits, ServerState
from smmf_core.http.routes import Routes
from smmf_core.native import _ring
from smmf_core.native._ring import RingWriter
from smmf_core.router.control import RouterControl
from smmf_core.router.shell import RouterShell
from smmf_core.wire.control import ControlServer
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
        attach = m.Attach(worker, 1, 0, 1, rig.endpoint, rig.slots)
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

    async def ask(self, **fields: Any) -> None:
        body = json.dumps({"model": "m", "prompt": "x", **fields}).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
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
        model = m.ModelEntry(
            index=0, name="m", aliases=[], task="generate", backend="echo", state="ready",
            reason="", created=1, context_length=100, strategy="round_robin",
            max_queue=self.max_queue, max_queue_tokens=0, defaults={}, capabilities=[],
        )  # fmt: skip
        entries = [m.WorkerEntry(w, 1, 0, f"m-{w}", 1.0, online=True) for w in range(workers)]
        self.shell.core.on_registry(m.Registry(1, [model], entries))
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


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., None]:
    def run_test(test: Callable[[Rig], Coroutine[Any, Any, None]], **options: int) -> None:
        async def main() -> None:
            rig = Rig(tmp_path, **options)
            try:
                await test(rig)
            finally:
                rig.close()
                await asyncio.sleep(0.01)  # for the transports to close

        uvloop.run(main())

    return run_test


Run = Callable[..., None]


def result(text: str) -> bytes:
    return m.encode(m.Result([m.Choice(text, [1], m.STOP)]))


def test_what_cannot_be_used_costs_its_request_only(run: Run) -> None:
    async def test(rig: Rig) -> None:
        (worker,) = await rig.start()
        clients = [await rig.client() for _ in range(4)]
        for client in clients:
            await client.ask()
        submits = [await worker.submit(n) for n in range(4)]
        worker.put(submits[0], (m.RESULT, 0, b"\xc1"))
        worker.put(submits[1], (m.FINISH, 0, USAGE))  # without its result
        worker.put(submits[2], (m.FAIL, 0, m.encode(m.Failure("no such code", "x"))))
        worker.put(submits[3], (m.RESULT, 0, result("good")), (m.FINISH, 0, USAGE))
        for client in clients[:3]:
            got = await client.read(b"}}")
            assert got.startswith(b"HTTP/1.1 500 ")
            assert b"internal_error" in got
        assert b'"text":"good"' in await clients[3].read(b"}}")
        assert rig.shell.is_idle
        assert rig.shell.core.scheduler.in_flight(0) == 0
        counted = rig.shell.metrics.model("m").requests
        assert counted == {("completion", 500): 3, ("completion", 200): 1}

    run(test)


def test_what_came_before_a_malformed_record_counts(run: Run) -> None:
    async def test(rig: Rig) -> None:
        first, second = await rig.start(2)
        lost: list[int] = []
        rig.shell.on_worker_lost = lambda worker, incarnation, reason: lost.append(worker)
        clients = [await rig.client() for _ in range(2)]
        await clients[0].ask()
        ended = await first.submit()
        await clients[1].ask()  # round robin: to the other one
        other = await second.submit()
        first.put(ended, (m.RESULT, 0, result("good")), (m.FINISH, 0, USAGE))
        first.corrupt()
        assert b'"text":"good"' in await clients[0].read(b"}}")
        await until(lambda: lost == [0])
        second.put(other, (m.RESULT, 0, result("fine")), (m.FINISH, 0, USAGE))
        assert b'"text":"fine"' in await clients[1].read(b"}}")
        assert rig.shell.is_idle

    run(test)


def test_an_ended_stream_does_not_wait_for_ever_for_its_client(run: Run) -> None:
    async def test(rig: Rig) -> None:
        (worker,) = await rig.start()
        client = await rig.client()
        await client.ask(stream=True)
        submit = await worker.submit()
        text = struct.pack("<i", 1) + b"x" * 600_000
        worker.put(submit, (m.ADMIT, 1, bytes(4)), (m.TOKENS, 1, text))
        worker.put(submit, (m.CHOICE_END, m.STOP, b""), (m.FINISH, 0, USAGE))
        await until(lambda: rig.shell.core.open == {})
        assert not rig.shell.is_idle
        now = time.monotonic()
        rig.shell.check_timeouts(now + 30)
        await asyncio.sleep(0.01)
        assert not rig.shell.is_idle
        rig.shell.check_timeouts(now + 120)
        await until(lambda: rig.shell.is_idle and not rig.state.connections)
        assert len(rig.shell.table) == 0
        assert rig.shell.metrics.model("m").requests == {("completion", 200): 1}

    run(test)


def test_an_echoed_prompt_is_not_sent_twice(run: Run) -> None:
    async def test(rig: Rig) -> None:
        first, _ = await rig.start(2)
        client = await rig.client()
        await client.ask(stream=True, echo=True)
        first.put(await first.submit(), (m.ADMIT, 1, bytes(4)), (m.TOKENS, 0, b"the prompt"))
        await client.read(b"the prompt")
        rig.shell.detach(0, 1)
        assert b'"code":"worker_lost"' in await client.read(b"\r\n0\r\n\r\n")

    run(test)


def test_the_instance_is_named_once_there_is_one(run: Run) -> None:
    async def test(rig: Rig) -> None:
        (worker,) = await rig.start()
        clients = [await rig.client() for _ in range(3)]
        for client in clients:
            await client.ask()
        assert b"x-smmf-instance" not in await clients[2].read(b"}}")  # the queue is full
        submit = await worker.submit()
        worker.put(submit, (m.RESULT, 0, result("good")), (m.FINISH, 0, USAGE))
        assert b"x-smmf-instance: m-0\r\n" in await clients[0].read(b"}}")

    run(test, slots=1, max_queue=1)


def test_metrics_show_instances_and_leave_out_what_never_was(run: Run) -> None:
    async def test(rig: Rig) -> None:
        (worker,) = await rig.start()
        client = await rig.client()
        await client.ask(stream=True)
        worker.put(await worker.submit(), (m.ADMIT, 1, bytes(4)))
        worker.put(worker.submits[0], (m.CHOICE_END, m.STOP, b""), (m.FINISH, 0, USAGE))
        await client.read(b"\r\n0\r\n\r\n")
        total = rig.shell.gathered_metrics()
        assert total.gauges.instance_up == {"m-0": ("m", 1)}
        model = total.model("m")
        assert model.first_token.count == 0  # it had no token
        assert (model.request.count, model.queue.count) == (1, 1)
        assert 0 <= model.request.sum < WAIT_S

    run(test)


def test_full_rings_are_counted_also_those_that_are_gone(run: Run) -> None:
    async def test(rig: Rig) -> None:
        (worker,) = await rig.start()
        record = (m.TOKENS, 1, 0, 0, 0, b"x" * 100_000)
        while worker.writer.write([record]):
            continue
        assert rig.shell.gathered_metrics().gauges.ring_full == 1
        rig.shell.detach(0, 1)
        assert rig.shell.gathered_metrics().gauges.ring_full == 1

    run(test)


def test_a_ready_that_comes_while_the_router_sends_is_seen(run: Run) -> None:
    async def test(rig: Rig) -> None:
        (first,) = await rig.start()
        client = await rig.client()
        await client.ask()
        await first.submit()
        entries = [m.WorkerEntry(w, 1, 0, f"m-{w}", 1.0, online=True) for w in range(2)]
        model = rig.shell.core.fleet.models[0].entry
        rig.shell.core.on_registry(m.Registry(2, [model], entries))
        second = WorkerEnd(rig, 1)
        rig.workers.append(second)
        await asyncio.sleep(0.1)  # connected
        second.say_ready()
        time.sleep(0.1)  # noqa: ASYNC251 - the frame arrives while the loop is busy
        rig.shell.send(0, [m.Cancel(99, 0)])
        rig.shell.wake()
        await until(lambda: 1 in rig.shell.core.fleet.workers)

    run(test)


def test_a_router_hears_the_controller_it_finds_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        server = ControlServer(tmp_path)
        listener = socket.create_server(("127.0.0.1", 0))
        heard: list[socket.socket] = []
        control = RouterControl(tmp_path, 0, 1, heard.append)
        control.tick(time.monotonic())
        (first,) = server.accept()
        welcome = m.Welcome(m.PROTOCOL, msgspec.msgpack.encode(ServerConfig()))
        first.send(welcome, [listener.fileno()])
        await until(lambda: bool(heard))
        await asyncio.sleep(0.25)  # it tries to connect at most every 0.2 s
        first.close()  # and a new connection is welcome at once
        accepted = []
        await until(lambda: bool(accepted.extend(server.accept()) or accepted))
        accepted[0].send(m.Drain(1.0))
        await until(lambda: control.is_draining)
        for sock in heard:
            sock.close()
        accepted[0].close()
        assert control.shell is not None
        close(control.shell)
        server.close()
        listener.close()

    uvloop.run(main())
