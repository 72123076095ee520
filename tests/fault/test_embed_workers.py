"""Embedding workers that die and clients that leave: nothing was sent, so nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from server import Server

STEP_MS = 150
MODEL = f"""
[model]
name = "near"
backend = "echo"
task = "embed"
[deployment]
replicas = {{replicas}}
[optimization]
max_batch_size = 4
[engine]
step_ms = {STEP_MS}
"""


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def workers(server: Server) -> list[dict[str, Any]]:
    return [row for row in server.instances() if row["model"] == "near" and row["pid"]]


def ask(server: Server, count: int, answers: list[tuple[int, Any]]) -> threading.Thread:
    def run() -> None:
        body = {"model": "near", "input": [f"text {n}" for n in range(count)]}
        status, _, text = server.request("POST", "/v1/embeddings", body)
        answers.append((status, json.loads(text)))

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.fixture(params=[1, 2])
def server(request: pytest.FixtureRequest, folder: Path) -> Iterator[Server]:
    (folder / "local-near.toml").write_text(MODEL.format(replicas=request.param))
    started = Server(folder).start()
    until(lambda: len(workers(started)) == request.param)
    yield started
    assert started.stop() == 0


def test_a_request_of_a_worker_that_dies_is_placed_again(server: Server) -> None:
    answers: list[tuple[int, Any]] = []
    thread = ask(server, 160, answers)  # forty steps
    until(lambda: any(row["in_flight"] for row in workers(server)))
    busy = next(row for row in workers(server) if row["in_flight"])
    os.kill(busy["pid"], signal.SIGKILL)
    thread.join(60)
    ((status, answer),) = answers
    assert status == 200, answer
    assert [d["index"] for d in answer["data"]] == list(range(160))
    metrics = server.metrics()
    assert metrics['smmf_failovers_total{model="near"}'] == 1
    assert metrics['smmf_requests_running{model="near"}'] == 0


def test_the_texts_of_a_client_that_leaves_are_forgotten(server: Server) -> None:
    """They would keep the Worker busy for more than a minute."""
    body = json.dumps({"model": "near", "input": ["x"] * 2048}).encode()
    head = f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head.encode() + body)
        until(lambda: any(row["tok_s"] for row in workers(server)))
    name = 'smmf_cancelled_total{model="near",reason="disconnect"}'
    until(lambda: server.metrics().get(name) == 1)
    until(lambda: not any(row["in_flight"] or row["tok_s"] for row in workers(server)))
    answers: list[tuple[int, Any]] = []
    ask(server, 1, answers).join(30)
    assert [status for status, _ in answers] == [200]
