"""A Router's shell: what it tells of requests, in its log and to the Controller."""

from __future__ import annotations

import asyncio
import gc
import json
import struct
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from router_shell_rig import USAGE, Rig, WorkerEnd, result, run_test, until

from smmf_core import control_messages as cm
from smmf_core import messages as m
from smmf_core.http.access_log import AccessLog
from smmf_core.router.call import Call
from smmf_core.router.core import Open
from smmf_core.router.response import Answer


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., None]:
    return partial(run_test, tmp_path)


Run = Callable[..., None]


def logged(rig: Rig, folder: Path) -> list[dict[str, Any]]:
    rig.shell.on_tick(time.monotonic())
    return [json.loads(line) for line in (folder / "access.log").read_text().splitlines()]


def test_every_request_leaves_a_line_in_the_access_log(run: Run, tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        rig.shell.access = AccessLog(tmp_path / "access.log", is_json=True)
        (worker,) = await rig.start()
        clients = [await rig.client() for _ in range(5)]
        await clients[0].ask()
        worker.put(await worker.submit(0), (m.RESULT, 0, result("good")), (m.FINISH, 0, USAGE))
        await clients[0].read(b"}}")
        await clients[1].ask(stream=True)
        submit = await worker.submit(1)
        text = struct.pack("<i", 1) + b"x"
        worker.put(submit, (m.ADMIT, 1, bytes(4)), (m.TOKENS, 1, text))
        worker.put(submit, (m.CHOICE_END, m.LENGTH, b""), (m.FINISH, 0, USAGE))
        await clients[1].read(b"\r\n0\r\n\r\n")
        await clients[2].ask(model="nobody")
        await clients[2].read(b"}}")
        await clients[3].ask(stream=True)
        await worker.submit(2)
        clients[3].sock.close()
        await until(lambda: rig.shell.core.open == {})
        await clients[4].ask()
        failure = m.encode(m.Failure("context_length_exceeded", "too long"))
        worker.put(await worker.submit(3), (m.FAIL, 0, failure))
        await clients[4].read(b"}}")
        lines = logged(rig, tmp_path)
        seen = [
            (line["status"], line["finish"], line["instance"], line["stream"]) for line in lines
        ]
        assert seen == [
            (200, "stop", "m-0", False),
            (200, "length", "m-0", True),
            (404, "model_not_found", None, False),
            (499, "disconnect", "m-0", True),
            (400, "context_length_exceeded", "m-0", False),
        ]
        assert {line["route"] for line in lines} == {"completion"}
        assert [line["model"] for line in lines] == ["m", "m", "nobody", "m", "m"]
        whole, stream = lines[:2]
        assert whole["request_id"] == submit_id(worker, 0)
        assert stream["request_id"] == submit_id(worker, 1)
        assert whole["first_token_ms"] is None
        assert 0 < stream["queue_ms"] <= stream["first_token_ms"] <= stream["total_ms"]
        assert (stream["prompt_tokens"], stream["generated_tokens"]) == (1, 1)
        assert lines[2]["queue_ms"] is None

    run(test)


def submit_id(worker: WorkerEnd, number: int) -> str:
    return worker.submits[number].request_id


def test_health_checks_are_not_logged_other_requests_are(run: Run, tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        rig.shell.access = AccessLog(tmp_path / "access.log", is_json=True)
        await rig.start()
        client = await rig.client()
        for path in ("/health", "/ready", "/metrics", "/v1/models", "/nowhere"):
            head = f"GET {path} HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine\r\n\r\n"
            await asyncio.get_running_loop().sock_sendall(client.sock, head.encode())
            await client.read(b"\r\n\r\n")
        lines = logged(rig, tmp_path)
        assert [(line["route"], line["status"]) for line in lines] == [
            ("/v1/models", 200),
            ("/nowhere", 404),
        ]
        assert {line["request_id"] for line in lines} == {"mine"}

    run(test)


def test_keep_alive_is_kept_of_the_newest_request_that_gave_one(run: Run) -> None:
    async def test(rig: Rig) -> None:
        await rig.start()
        for fields in (
            {},
            {"keep_alive": "5m"},
            {},
            {"keep_alive": "soon"},
            {"keep_alive": -1},
            {},
        ):
            client = await rig.client()
            await client.ask(**fields)
        model = rig.shell.core.fleet.find("m")
        await until(lambda: model.accepted == 5)
        assert model.keep_alive_s == -1.0

    run(test)


def test_auto_says_who_answered(run: Run) -> None:
    async def test(rig: Rig) -> None:
        (worker,) = await rig.start()
        client = await rig.client()
        await client.ask(model="auto", smmf={"require": {"context_length": 100}})
        worker.put(await worker.submit(), (m.RESULT, 0, result("good")), (m.FINISH, 0, USAGE))
        assert b'"model":"m"' in await client.read(b"}}")
        await client.ask(model="auto", smmf={"require": {"context_length": 101}})
        got = await client.read(b"}}")
        assert got.startswith(b"HTTP/1.1 404 ")
        assert b"a context of 101 tokens" in got

    run(test)


def test_nobody_has_loaded_it_yet(run: Run) -> None:
    """The Controller is asked; the client waits as long as it says and is told to come again."""

    async def test(rig: Rig) -> None:
        wanted: list[int] = []
        rig.shell.on_load_wanted = wanted.append
        await rig.start(0)
        fleet = rig.shell.core.fleet
        entry = msgspec.structs.replace(fleet.models[0].entry, state="registered")
        rig.shell.core.on_registry(cm.Registry(2, [entry], []))
        client = await rig.client()
        await client.ask(headers="X-SMMF-Timeout: 0.05\r\n")
        await until(lambda: wanted == [0])
        await asyncio.sleep(0.06)
        fleet.on_loading(cm.Loading(0, "load", 0.5, 9.0), time.monotonic())
        rig.shell.on_tick(time.monotonic())
        got = await client.read(b"}}")
        assert got.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 9\r\n" in got
        assert b"50 %, about 9 s left" in got

    run(test)


def test_requests_leave_nothing_to_the_garbage_collector(run: Run) -> None:
    """A collection costs more than all that one request does."""

    def kept() -> int:
        kinds = (Answer, Call, Open)  # by type(): some objects warn when they are asked for theirs
        return sum(issubclass(type(thing), kinds) for thing in gc.get_objects())

    async def test(rig: Rig) -> None:
        (worker,) = await rig.start()
        before = kept()
        gone = await rig.client()
        await gone.ask(stream=True)
        await worker.submit(0)
        gone.sock.close()
        await until(lambda: rig.shell.core.open == {})
        for number, stream in enumerate((False, True), start=1):
            client = await rig.client()
            await client.ask(stream=stream)
            submit = await worker.submit(number)
            text = struct.pack("<i", 1) + b"x"
            answer = (m.TOKENS, 1, text) if stream else (m.RESULT, 0, result("x"))
            worker.put(submit, (m.ADMIT, 1, bytes(4)), answer, (m.CHOICE_END, m.STOP, b""))
            worker.put(submit, (m.FINISH, 0, USAGE))
            await client.read(b"\r\n0\r\n\r\n" if stream else b"}}")
        refused = await rig.client()
        await refused.ask(model="nobody")
        await refused.read(b"}}")
        await until(lambda: rig.shell.is_idle)
        assert kept() == before

    gc.disable()
    try:
        run(test)
    finally:
        gc.enable()
