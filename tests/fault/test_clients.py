"""Clients that vanish, read slowly or send nonsense: the work stops, nothing leaks."""

from __future__ import annotations

import json
import os
import random
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from server import Server
from test_workers import no_slot_taken, rest, stream


def cancelled(server: Server, reason: str = "disconnect") -> float:
    name = f'smmf_cancelled_total{{model="echo",reason="{reason}"}}'
    return server.metrics().get(name, 0.0)


def wait_cancelled(server: Server, more_than: float, reason: str = "disconnect") -> None:
    until = time.monotonic() + 20
    while cancelled(server, reason) <= more_than:
        assert time.monotonic() < until
        time.sleep(0.05)


def reset(connection: socket.socket) -> None:
    """Close with RST, as a killed client's kernel may."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_a_client_gone_in_a_stream_cancels(server: Server) -> None:
    for leave in (socket.socket.close, reset):
        before = cancelled(server)
        connection, _ = stream(server, smmf_echo={"tokens": 100_000, "step_ms": 5})
        leave(connection)
        wait_cancelled(server, before)
    assert no_slot_taken(server)


def test_a_client_gone_without_streaming_cancels(server: Server) -> None:
    before = cancelled(server)
    echo = {"tokens": 10_000, "step_ms": 10}
    body = {"model": "echo", "messages": [{"role": "user", "content": "x"}], "smmf_echo": echo}
    payload = json.dumps(body).encode()
    connection = socket.create_connection(("127.0.0.1", server.port))
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(payload)}\r\n\r\n"
    )
    connection.sendall(head.encode() + payload)
    until = time.monotonic() + 10
    while server.metrics().get('smmf_requests_running{model="echo"}', 0) < 1:
        assert time.monotonic() < until
        time.sleep(0.02)
    connection.close()
    wait_cancelled(server, before)
    assert no_slot_taken(server)


def test_a_client_gone_after_the_end_is_a_success(server: Server) -> None:
    before = cancelled(server)
    for _ in range(50):
        connection, got = stream(server, smmf_echo={"tokens": 3})
        while b"[DONE]" not in got:
            got += connection.recv(65536)
        reset(connection)
    assert no_slot_taken(server)
    assert cancelled(server) == before


def test_a_slow_reader_gets_everything_and_disturbs_nobody(server: Server) -> None:
    connection, got = stream(server, smmf_echo={"tokens": 20_000}, max_tokens=20_000)
    for _ in range(20):
        assert server.chat(smmf_echo={"tokens": 2})[0] == 200
    while not got.endswith(b"0\r\n\r\n"):
        data = connection.recv(65536)
        assert data
        got += data
    assert b"[DONE]" in got
    connection.close()
    assert no_slot_taken(server)


def test_a_reader_that_never_reads_is_cut_off(server: Server) -> None:
    before = cancelled(server, "slow_client")
    text = "y" * 60_000
    fields: dict[str, Any] = {"smmf_echo": {"text": "echo"}, "n": 120}
    body = {"model": "echo", "messages": [{"role": "user", "content": text}], "stream": True}
    payload = json.dumps({**body, **fields}).encode()
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", server.port))
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(payload)}\r\n\r\n"
    )
    connection.sendall(head.encode() + payload)
    wait_cancelled(server, before, "slow_client")
    connection.close()
    assert no_slot_taken(server)


def test_a_router_under_churn_leaks_nothing(server: Server, tmp_path: Path) -> None:
    """Thousands of requests with random faults; slots, descriptors, memory are as before."""

    def use(seed: int, rounds: int) -> None:
        draw = random.Random(seed)
        for _ in range(rounds):
            kind = draw.randrange(6)
            if kind == 0:
                connection, _ = stream(server, smmf_echo={"tokens": 100_000, "step_ms": 1})
                reset(connection)
            elif kind == 1:
                echo = {"tokens": 5, "fail": "error:4"}
                connection, got = stream(server, smmf_echo=echo)
                if got.startswith(b"HTTP/1.1 500"):  # it failed before anything was sent
                    connection.close()
                else:
                    assert b'data: {"error"' in got + rest(connection)
            elif kind == 2:
                with socket.create_connection(("127.0.0.1", server.port)) as connection:
                    connection.sendall(draw.randbytes(draw.randrange(1, 200)))
            elif kind == 3:
                server.request("POST", "/v1/chat/completions", b"{" * draw.randrange(1, 999))
            else:
                words = {"tokens": draw.randrange(1, 20)}
                assert server.chat(smmf_echo=words, stream=bool(kind % 2))[0] == 200

    def churn(rounds: int) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(use, range(8), [rounds] * 8))
        assert no_slot_taken(server)

    router = server.pid_of("router")
    churn(60)
    descriptors, memory = counts(router)
    churn(300)
    until = time.monotonic() + 20  # connections of refused requests linger for two seconds
    while counts(router)[0] > descriptors + 2 and time.monotonic() < until:
        time.sleep(0.1)
    assert counts(router)[0] <= descriptors + 2
    assert counts(router)[1] <= memory + 8_000_000


def counts(pid: int) -> tuple[int, int]:
    """(open descriptors, resident bytes)"""
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return len(os.listdir(f"/proc/{pid}/fd")), resident * os.sysconf("SC_PAGE_SIZE")


def test_tokens_and_refusals_are_counted(server: Server) -> None:
    """Also those of answers that did not come to their end, and of requests without a model."""

    def count(name: str) -> float:
        return server.metrics().get(name, 0.0)

    generated = 'smmf_generation_tokens_total{model="echo"}'
    refused = 'smmf_requests_total{code="400",model="",route="chat"}'
    before = count(generated), count(refused)
    connection, got = stream(server, smmf_echo={"tokens": 100_000, "step_ms": 5})
    connection.close()
    seen = got.count(b'"delta":{"content":')
    until = time.monotonic() + 20
    while count(generated) < before[0] + seen and time.monotonic() < until:
        time.sleep(0.05)
    assert before[0] + seen <= count(generated) < before[0] + 4000  # what 20 s would give
    assert server.request("POST", "/v1/chat/completions", b"{")[0] == 400
    assert count(refused) == before[1] + 1
