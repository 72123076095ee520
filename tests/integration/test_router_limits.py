"""A Router's shell with keys: what is taken of their limits is given back at every kind of end."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from router_shell_rig import Client, Rig, result, run_test, until

from smmf_core import control_messages as cm
from smmf_core import messages as m
from smmf_core.errors import ApiError
from smmf_core.keys import digest, month_of
from smmf_core.native._limits import LimitTable

USAGE = struct.pack("4I", 3, 4, 1, 0)  # prompt, generated, cached
KEY = "Authorization: Bearer sk-1\r\n"
CHUNKS_END = b"\r\n0\r\n\r\n"
Run = Callable[..., None]


@pytest.fixture
def table(tmp_path: Path) -> Iterator[LimitTable]:
    fd = os.open(tmp_path / "limits", os.O_RDWR | os.O_CREAT)
    yield LimitTable.create(fd)
    os.close(fd)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return partial(run_test, tmp_path)


def give_key(rig: Rig, table: LimitTable, **fields: Any) -> None:
    fields.setdefault("roles", ["inference"])
    entry = cm.KeyEntry(id="key0", slot=0, digest=digest(b"sk-1"), **fields)
    rig.shell.keys.update(cm.Keys(1, [entry], required=True), table)


def state(rig: Rig, table: LimitTable) -> tuple[int, ...]:
    """(requests, tokens, open requests, -, the month's tokens)"""
    return table.state(0, rig.shell.wall_s, month_of(rig.shell.wall_s))


async def answer(client: Client) -> bytes:
    return await client.read(b"}}")


def used(rig: Rig) -> cm.UsageDelta:
    (delta,) = rig.shell.usage.take()
    return delta


def test_keys_are_shown_where_clients_of_each_kind_do(run: Run, table: LimitTable) -> None:
    async def test(rig: Rig) -> None:
        (worker,) = await rig.start()
        give_key(rig, table)
        client = await rig.client()
        for bad in ("", "Authorization: Bearer sk-2\r\n", "Authorization: sk-1\r\n"):
            await client.ask(bad)
            got = await answer(client)
            assert got.startswith(b"HTTP/1.1 401 ")
            assert b"www-authenticate: Bearer\r\n" in got
        shown = (KEY, "authorization: bearer  sk-1 \r\n", "x-api-key: sk-1\r\n")
        for number, header in enumerate((*shown, "Authorization: Basic x\r\napi-key: sk-1\r\n")):
            await client.ask(header)
            submit = await worker.submit(number)
            worker.put(submit, (m.RESULT, 0, result("good")), (m.FINISH, 0, USAGE))
            assert (await answer(client)).startswith(b"HTTP/1.1 200 ")
        assert used(rig) == cm.UsageDelta("key0", "m", 4, 0, 12, 4, 16)

    run(test)


def test_an_answer_settles_what_it_has_used(run: Run, table: LimitTable) -> None:
    async def test(rig: Rig) -> None:
        (worker,) = await rig.start()
        give_key(rig, table, requests_per_minute=2, tokens_per_minute=1000)
        client = await rig.client()
        await client.ask(KEY, max_tokens=30, n=2)
        submit = await worker.submit()
        assert state(rig, table)[:3] == (1, 61, 1)
        worker.put(submit, (m.RESULT, 0, result("good")), (m.FINISH, 0, USAGE))
        got = await answer(client)
        assert b"x-ratelimit-limit-requests: 2\r\nx-ratelimit-remaining-requests: 1\r\n" in got
        assert b"x-ratelimit-limit-tokens: 1000\r\nx-ratelimit-remaining-tokens: 939\r\n" in got
        assert state(rig, table)[:3] == (1, 7, 0)
        assert state(rig, table)[4] == 7
        await client.ask(KEY, stream=True)
        worker.put(await worker.submit(1), (m.ADMIT, 3, bytes(4)))
        worker.put(worker.submits[1], (m.CHOICE_END, m.STOP, b""), (m.FINISH, 0, USAGE))
        got = await client.read(CHUNKS_END)
        assert b"x-ratelimit-remaining-requests: 0\r\n" in got
        assert state(rig, table)[:3] == (2, 14, 0)
        await client.ask(KEY)
        got = await answer(client)
        assert got.startswith(b"HTTP/1.1 429 ")
        assert b"\r\nretry-after: " in got
        assert b"x-ratelimit-remaining-requests: 0\r\n" in got
        assert b'"code":"rate_limit_exceeded"' in got
        await client.ask(KEY, max_tokens="many")  # errors tell what is left, too
        assert b"x-ratelimit-remaining-tokens: 986\r\n" in await answer(client)
        assert [(d.model, d.requests, d.errors) for d in rig.shell.usage.take()] == [
            ("m", 3, 1),
            ("", 1, 1),
        ]
        assert rig.shell.metrics.model("m").requests["completion", 429] == 1

    run(test)


def test_who_goes_away_gives_back(run: Run, table: LimitTable) -> None:
    async def test(rig: Rig) -> None:
        (worker,) = await rig.start()
        give_key(rig, table, max_concurrency=1)
        first, second = [await rig.client() for _ in range(2)]
        await first.ask(KEY, stream=True)
        worker.put(await worker.submit(), (m.ADMIT, 3, bytes(4)))
        await first.read(b"\r\n\r\n")
        await second.ask(KEY)
        assert b"concurrent requests: Limit 1, Used 1" in await answer(second)
        first.sock.close()
        await until(lambda: state(rig, table)[2] == 0)
        await second.ask(KEY)
        await worker.submit(1)
        assert state(rig, table)[2] == 1
        assert used(rig) == cm.UsageDelta("key0", "m", 2, 1, 3, 0, 0)

    run(test)


def test_failures_give_back(run: Run, table: LimitTable, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(rig: Rig) -> None:
        (worker,) = await rig.start()
        give_key(rig, table, max_concurrency=9)
        clients = [await rig.client() for _ in range(3)]
        for client in clients:
            await client.ask(KEY)
        assert b'"code":"queue_full"' in await answer(clients[2])
        assert state(rig, table)[2] == 2
        worker.put(await worker.submit(), (m.FAIL, 0, m.encode(m.Failure("internal_error", "x"))))
        assert (await answer(clients[0])).startswith(b"HTTP/1.1 500 ")
        rig.shell.detach(0, 1)
        rig.shell.core.abort(next(iter(rig.shell.core.open)), ApiError("worker_lost", "x"))
        assert (await answer(clients[1])).startswith(b"HTTP/1.1 502 ")
        assert state(rig, table)[1:3] == (0, 0)
        monkeypatch.setattr(rig.shell.core, "submit", None)  # a bug
        await clients[2].ask(KEY)
        assert (await clients[2].read(b"}}")).startswith(b"HTTP/1.1 500 ")
        assert state(rig, table)[1:3] == (0, 0)
        assert used(rig) == cm.UsageDelta("key0", "m", 4, 4)

    run(test, slots=1, max_queue=1)


def test_a_key_has_its_models_and_its_roles(run: Run, table: LimitTable) -> None:
    async def test(rig: Rig) -> None:
        await rig.start()
        give_key(rig, table, models=["other"])
        client = await rig.client()
        for fields in ({}, {"model": "auto"}):
            await client.ask(KEY, **fields)
            got = await answer(client)
            assert got.startswith(b"HTTP/1.1 403 " if not fields else b"HTTP/1.1 404 ")
        await client.ask(KEY, model="none")
        assert b'"code":"model_not_found"' in await answer(client)
        deltas = {(d.key, d.model): d.errors for d in rig.shell.usage.take()}
        assert deltas == {("key0", "m"): 1, ("key0", ""): 2}
        give_key(rig, table, roles=["read"])
        await client.ask(KEY)
        assert b'"code":"permission_denied"' in await answer(client)
        for models, shown in (([], b'"id":"m"'), (["other"], b'"data":[]')):
            give_key(rig, table, models=models, roles=["read"])
            head = f"GET /v1/models HTTP/1.1\r\nHost: x\r\n{KEY}\r\n"
            client.sock.sendall(head.encode())
            assert shown in await client.read(b"]}")
        head = f"GET /v1/models/m HTTP/1.1\r\nHost: x\r\n{KEY}\r\n"
        client.sock.sendall(head.encode())
        assert (await answer(client)).startswith(b"HTTP/1.1 403 ")

    run(test)
