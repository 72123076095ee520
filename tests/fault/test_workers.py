"""Workers that die: nothing sent goes on elsewhere, tokens sent end in one error, no slot leaks."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from server import Server, echo_toml


def stream(server: Server, **fields: Any) -> tuple[socket.socket, bytes]:
    """Open a stream by hand; returns the socket and what came up to the first text or error."""
    messages = [{"role": "user", "content": "hi"}]
    body = json.dumps({"model": "echo", "messages": messages, "stream": True, **fields}).encode()
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    got = b""
    while b'{"content":"' not in got and b'{"error":' not in got:
        data = connection.recv(65536)
        if not data:
            connection.close()
            raise AssertionError(got)
        got += data
    return connection, got


def rest(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    got = b""
    with connection:
        while data := connection.recv(65536):
            got += data
    return got


def no_slot_taken(server: Server) -> bool:
    """Whether every Router and Worker counts nothing open; waits for the next reports."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        gauges = server.metrics()
        running = gauges.get('smmf_requests_running{model="echo"}', 0)
        waiting = gauges.get('smmf_requests_waiting{model="echo"}', 0)
        rows = [row for row in server.instances() if row.get("model") == "echo"]
        if running == waiting == 0 and all(row["in_flight"] == 0 for row in rows):
            return True
        time.sleep(0.1)
    return False


def worker_pids(server: Server) -> dict[str, int]:
    rows = server.instances()
    return {row["id"]: row["pid"] for row in rows if row.get("model") == "echo" and row["pid"]}


@pytest.fixture
def one(folder: Path) -> Iterator[Server]:
    (folder / "local-echo.toml").write_text(echo_toml())
    server = Server(folder).start()
    yield server
    assert server.stop() == 0


@pytest.fixture
def two(folder: Path) -> Iterator[Server]:
    (folder / "local-echo.toml").write_text(echo_toml(deployment={"replicas": 2}))
    server = Server(folder).start()
    yield server
    assert server.stop() == 0


def test_a_worker_killed_in_a_stream_ends_it_with_one_error(one: Server) -> None:
    connection, _ = stream(one, smmf_echo={"tokens": 1000, "step_ms": 20})
    os.kill(one.pid_of("worker"), signal.SIGKILL)
    tail = rest(connection)
    assert tail.count(b'data: {"error"') == 1
    assert b'"code":"worker_lost"' in tail
    assert tail.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert no_slot_taken(one)


def test_what_was_not_sent_waits_for_the_replacement(one: Server) -> None:
    answers: list[tuple[int, bytes]] = []

    def ask() -> None:
        status, _, body = one.chat(smmf_echo={"tokens": 5, "prefill_ms": 5000})
        answers.append((status, body))

    asking = threading.Thread(target=ask)
    asking.start()
    until = time.monotonic() + 30
    while one.metrics().get('smmf_requests_running{model="echo"}') != 1:
        assert time.monotonic() < until
        time.sleep(0.02)
    os.kill(one.pid_of("worker"), signal.SIGKILL)
    asking.join(60)
    assert [status for status, _ in answers] == [200]
    assert b"the quick brown fox jumps" in answers[0][1]
    assert one.metrics()['smmf_failovers_total{model="echo"}'] == 1
    assert no_slot_taken(one)


def test_one_of_two_workers_dies_under_load_and_nothing_unsent_is_lost(two: Server) -> None:
    statuses: list[int] = []

    def ask() -> None:
        echo = {"tokens": 3, "step_ms": 5}
        statuses.extend(two.chat(smmf_echo=echo)[0] for _ in range(40))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for pid in worker_pids(two).values():
        time.sleep(0.15)
        os.kill(pid, signal.SIGKILL)
    for thread in threads:
        thread.join(60)
    assert statuses == [200] * 320
    assert no_slot_taken(two)


@pytest.mark.parametrize("fail", ["crash:1", "crash:3"])
def test_a_request_that_kills_its_workers_is_poison_and_the_model_comes_back(
    two: Server, fail: str
) -> None:
    status, _, body = two.chat(smmf_echo={"tokens": 5, "fail": fail})
    assert (status, json.loads(body)["error"]["code"]) == (400, "poison_request")
    two.wait_ready()
    assert two.chat(smmf_echo={"tokens": 2})[0] == 200
    assert no_slot_taken(two)


def test_an_engine_error_is_the_requests_own(one: Server) -> None:
    pid = one.pid_of("worker")
    status, _, body = one.chat(smmf_echo={"tokens": 5, "fail": "error:2"})
    assert (status, json.loads(body)["error"]["code"]) == (500, "internal_error")
    assert one.pid_of("worker") == pid


def test_a_model_that_cannot_load_says_why(folder: Path) -> None:
    (folder / "local-echo.toml").write_text(echo_toml())
    (folder / "local-bad.toml").write_text(echo_toml("bad", engine={"fail": "load"}))
    server = Server(folder).start()
    try:
        until = time.monotonic() + 30
        while True:
            body = {"model": "bad", "messages": [{"role": "user", "content": "x"}]}
            status, _, answer = server.request("POST", "/v1/chat/completions", body)
            if b"told to fail its load" in answer or time.monotonic() > until:
                break
            time.sleep(0.1)
        assert status == 503
        assert b"told to fail its load" in answer
        assert server.chat(smmf_echo={"tokens": 1})[0] == 200
    finally:
        assert server.stop() == 0
