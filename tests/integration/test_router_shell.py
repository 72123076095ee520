"""A Router's shell: what Workers and clients do to it."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import pytest
import uvloop
from router_shell_rig import USAGE, WAIT_S, Rig, WorkerEnd, close, result, run_test, until

from smmf_core import control_messages as cm
from smmf_core import messages as m
from smmf_core.config import ServerConfig
from smmf_core.native._limits import LimitTable
from smmf_core.router.control import RouterControl
from smmf_core.wire.control import ControlServer


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., None]:
    return partial(run_test, tmp_path)


Run = Callable[..., None]


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
        rig.shell.on_tick(now + 30)
        await asyncio.sleep(0.01)
        assert not rig.shell.is_idle
        rig.shell.on_tick(now + 120)
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
        entries = [cm.WorkerEntry(w, 1, 0, f"m-{w}", 1.0, online=True) for w in range(2)]
        model = rig.shell.core.fleet.models[0].entry
        rig.shell.core.on_registry(cm.Registry(2, [model], entries))
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
        control = RouterControl(tmp_path, 0, 1, heard.extend)
        control.tick(time.monotonic())
        (first,) = server.accept()
        welcome = cm.Welcome(m.PROTOCOL, msgspec.msgpack.encode(ServerConfig()))
        first.send(welcome, [listener.fileno()])
        await until(lambda: control.shell is not None)
        assert not heard  # not before it knows who may ask
        table = os.open(tmp_path / "limits", os.O_RDWR | os.O_CREAT)
        LimitTable.create(table)
        first.send(cm.Keys(1, [], required=False), [table])
        await until(lambda: bool(heard))
        await asyncio.sleep(0.25)  # it tries to connect at most every 0.2 s
        first.close()  # and a new connection is welcome at once
        accepted = []
        await until(lambda: bool(accepted.extend(server.accept()) or accepted))
        accepted[0].send(cm.Drain(1.0))
        await until(lambda: control.is_draining)
        for sock in heard:
            sock.close()
        accepted[0].close()
        os.close(table)
        assert control.shell is not None
        close(control.shell)
        server.close()
        listener.close()

    uvloop.run(main())
