"""Streams with nothing to say: clients hear of a Worker that works, not of one that hangs."""

from __future__ import annotations

import asyncio
import json
import struct
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from router_end import RouterEnd
from router_shell_rig import USAGE, Client, Rig, WorkerEnd, result, run_test

from smmf_core import messages as m
from smmf_core.errors import ApiError
from smmf_core.worker.links import Links

Run = Callable[..., None]
QUIET_S = 16.0
CHAT = {"messages": [{"role": "user", "content": "x"}], "stream": True}
USAGE_OPTION = {"stream_options": {"include_usage": True}}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return partial(run_test, tmp_path)


async def _ask(client: Client, path: str, **fields: Any) -> None:
    body = json.dumps({"model": "m", **fields}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    await asyncio.get_running_loop().sock_sendall(client.sock, head.encode() + body)


async def _admitted(
    rig: Rig, path: str, **fields: Any
) -> tuple[WorkerEnd, Client, m.Submit, bytes]:
    """A stream that has begun, and what its client has got."""
    (worker,) = await rig.start()
    client = await rig.client()
    await _ask(client, path, **fields)
    submit = await worker.submit()
    worker.put(submit, (m.ADMIT, 1, bytes(4)))
    return worker, client, submit, await client.read(b"\r\n\r\n")


def _events(wire: bytes) -> list[Any]:
    """The events of chunks of HTTP, each of whole events."""
    bodies = []
    while wire:
        size, _, wire = wire.partition(b"\r\n")
        length = int(size, 16)
        bodies.append(wire[:length])
        wire = wire[length + 2 :]
    assert all(body.endswith(b"\n\n") or not body for body in bodies)
    lines = [line for line in b"".join(bodies).split(b"\n") if line.startswith(b"data: ")]
    data = [line.removeprefix(b"data: ") for line in lines]
    return [json.loads(text) for text in data if text != b"[DONE]"]


@pytest.mark.parametrize("fields", [{}, USAGE_OPTION], ids=["plain", "usage"])
def test_a_chat_stream(run: Run, fields: Any) -> None:
    async def test(rig: Rig) -> None:
        (worker, client, submit, got) = await _admitted(
            rig, "/v1/chat/completions", **CHAT, **fields
        )
        got = got.partition(b"\r\n\r\n")[2]
        now = time.monotonic()
        for count in (1, 2):
            worker.writer.step(count)
            for _ in range(3):
                rig.shell.on_tick(now + count * QUIET_S)
            got += await client.read(b'"delta":{}')
        token = struct.pack("<i", 1)
        worker.put(submit, (m.TOKENS, 1, token + b"a"), (m.CHOICE_END, m.STOP, b""))
        worker.put(submit, (m.FINISH, 0, USAGE))
        got += await client.read(b"\r\n0\r\n\r\n")
        events = _events(got)
        role, *no_ops, text, end = events[:5]
        assert [event["choices"] for event in no_ops] == [
            [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": None}]
        ] * 2
        assert {event["id"] for event in events} == {role["id"]}
        assert text["choices"][0]["delta"] == {"content": "a"}
        assert end["choices"][0]["finish_reason"] == "stop"
        assert all(("usage" in event) == bool(fields) for event in events)
        assert len(events) == (6 if fields else 5)

    run(test)


@pytest.mark.parametrize(
    ("path", "fields", "no_op"),
    [
        ("/v1/completions", {"prompt": "x"}, b'"text":"","logprobs":null,"finish_reason":null'),
        ("/v1/messages", {**CHAT, "max_tokens": 5}, b'event: ping\ndata: {"type":"ping"}\n\n'),
    ],
)
def test_other_dialects(run: Run, path: str, fields: Any, no_op: bytes) -> None:
    async def test(rig: Rig) -> None:
        asked = {**fields, "stream": True}
        worker, client, submit, got = await _admitted(rig, path, **asked)
        if path == "/v1/messages" and no_op not in got:
            await client.read(no_op)  # of its beginning
        worker.writer.step(1)
        rig.shell.on_tick(time.monotonic() + QUIET_S)
        assert no_op in await client.read(no_op)
        rig.shell.core.abort(submit.key, ApiError("worker_lost", "x"))
        await client.read(b"\r\n0\r\n\r\n")

    run(test)


def test_nothing_for_a_worker_that_hangs_or_a_stream_that_speaks(run: Run) -> None:
    async def test(rig: Rig) -> None:
        worker, client, submit, got = await _admitted(
            rig, "/v1/completions", prompt="x", stream=True
        )
        assert got.endswith(b"\r\n\r\n")
        now = time.monotonic()
        rig.shell.on_tick(now + QUIET_S)  # no step
        worker.writer.step(1)
        rig.shell.on_tick(now + QUIET_S)
        first = await client.read(b"}")
        rig.shell.on_tick(now + 2 * QUIET_S)  # the step was long ago
        worker.writer.step(2)
        worker.put(submit, (m.TOKENS, 1, struct.pack("<i", 1) + b"said"))
        text = await client.read(b"said")
        rig.shell.on_tick(time.monotonic() + 1)  # it has just heard something
        worker.put(submit, (m.CHOICE_END, m.STOP, b""), (m.FINISH, 0, USAGE))
        rest = await client.read(b"\r\n0\r\n\r\n")
        assert len(_events(first)) == 1
        assert len(_events(text)) == 1
        assert [event["choices"][0]["finish_reason"] for event in _events(rest)] == ["stop"]

    run(test)


def test_not_before_a_worker_has_taken_it(run: Run) -> None:
    async def test(rig: Rig) -> None:
        (worker,) = await rig.start()
        client = await rig.client()
        await client.ask(stream=True)
        submit = await worker.submit()
        worker.writer.step(1)
        rig.shell.on_tick(time.monotonic() + QUIET_S)
        worker.put(submit, (m.FAIL, 0, m.encode(m.Failure("context_length_exceeded", "long"))))
        assert (await client.read(b"}}")).startswith(b"HTTP/1.1 400 ")

    run(test)


def test_a_whole_answer_has_none(run: Run) -> None:
    async def test(rig: Rig) -> None:
        (worker,) = await rig.start()
        client = await rig.client()
        await client.ask()
        submit = await worker.submit()
        worker.put(submit, (m.ADMIT, 1, bytes(4)))
        worker.writer.step(1)
        rig.shell.on_tick(time.monotonic() + QUIET_S)
        worker.put(submit, (m.RESULT, 0, result("good")), (m.FINISH, 0, USAGE))
        assert (await client.read(b"}}")).startswith(b"HTTP/1.1 200 ")

    run(test)


def test_time_outs_do_not_hear_of_it(run: Run) -> None:
    async def test(rig: Rig) -> None:
        worker, client, _, _ = await _admitted(rig, "/v1/chat/completions", **CHAT)
        first_token_s = rig.shell.config.timeouts.first_token_s
        now = time.monotonic()
        steps = int(first_token_s / QUIET_S)
        for step in range(1, steps + 1):
            worker.writer.step(step)
            rig.shell.on_tick(now + step * QUIET_S)
        rig.shell.on_tick(now + first_token_s + 1)
        got = await client.read(b"[DONE]\n\n")
        assert got.count(b'"delta":{}') == steps
        assert b'"code":"inference_timeout"' in got

    run(test)


def test_a_step_that_tells_nothing_moves_the_counter(tmp_path: Path) -> None:
    class Idle:
        """A core whose requests have nothing to tell."""

        spec = type("Spec", (), {"context_length": 1})

        def __init__(self) -> None:
            self.out: dict[Any, list[m.Record]] = {}

        def add_router(self, key: Any) -> None:
            self.out[key] = []

        def on_router_gone(self, key: Any) -> None:
            del self.out[key]

    router = RouterEnd(tmp_path / "router")
    links = Links(Idle())  # type: ignore[arg-type]
    router.attach(links)
    for steps in (3, 4):
        links.flush(steps)
        assert router.reader.steps == steps
    links.close()
    router.close()
