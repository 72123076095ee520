"""The named scenarios: each runs its contestants in the same minute and returns its figures."""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from bench.serve.asking import CHAT, MESSAGES, chat, closed, echo, errors, measure
from bench.serve.client_lane import client_lane
from bench.serve.contestants import Contestant, FastApi, SendLoop, Smmf, get
from bench.serve.tls import tls
from bench.serve.waiting import growth_waiting
from smmf_core.loadgen import procfs
from smmf_core.loadgen.exchange import request_bytes
from smmf_core.loadgen.load import Load, Plan
from smmf_core.loadgen.local import free_port

Figures = dict[str, Any]
_WARM_UP = 2  # rounds before the measured ones: first requests make metrics, caches, connections


def quantile_ms(values: list[float], q: float) -> float:
    return round(1000 * sorted(values)[min(len(values) - 1, int(q * len(values)))], 3)


def _record(server: Contestant, tokens: int) -> list[bytes]:
    """One stream's body chunks, as the server sends them when nothing is merged."""
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        slow = {"smmf_echo": {"tokens": tokens, "step_ms": 1}}
        connection.sendall(chat(server, tokens, True, **slow))
        raw = b""
        while not raw.endswith(b"0\r\n\r\n"):
            raw += connection.recv(1 << 16)
    head, _, body = raw.partition(b"\r\n\r\n")
    events = [event + b"\n\n" for event in body.split(b"\n\n") if event.strip(b"0\r\n")]
    return [head + b"\r\n\r\n" + events[0], *events[1:-1], events[-1] + b"\r\n0\r\n\r\n"]


def _stream(clients: int, tokens: int, step_ms: float, rounds: int) -> Figures:
    """CPU per token against the C send loop with the same bytes and pace."""
    server = Smmf({"echo": echo(tokens=tokens, step_ms=step_ms)})
    try:
        request = chat(server, tokens, True)
        measure(server, closed(server, request, True, clients, clients * _WARM_UP))
        chunks = _record(server, tokens)
        cpu_s, outcomes, wall_s = measure(
            server, closed(server, request, True, clients, clients * rounds)
        )
    finally:
        server.stop()
    floor = SendLoop(chunks, clients, int(step_ms * 1000))
    try:
        floor_cpu_s = 0.0
        for _ in range(rounds):
            spent, floor_outcomes, _ = measure(
                floor, closed(floor, request, True, clients, clients)
            )
            floor_cpu_s += spent
    finally:
        floor.stop()
    total = clients * rounds * tokens
    got = sum(outcome.tokens for outcome in outcomes)
    return {
        "clients": clients,
        "tokens": got,
        "errors": errors(outcomes) | errors(floor_outcomes),
        "cpu_us_per_token": 1e6 * cpu_s / got,
        "floor_us_per_token": 1e6 * floor_cpu_s / total,
        "ratio": (cpu_s / got) / (floor_cpu_s / total),
        "tokens_per_s": got / wall_s,
        "first_token_p50_ms": quantile_ms([o.first_s - o.due_s for o in outcomes], 0.5),
    }


def stream_flat() -> Figures:
    return _stream(64, 128, 0, rounds=20)


def stream_paced_64() -> Figures:
    return _stream(64, 512, 1, rounds=4)


def stream_paced_8() -> Figures:
    return _stream(8, 1024, 1, rounds=4)


def unary() -> Figures:
    """Not streaming, 16 clients: CPU per request, against single-process FastAPI. The best of three
    rounds of each: neighbours on the machine cost caches."""
    total = 6000
    costs: dict[str, float] = {}
    failed: dict[str, int] = {}
    rate = 0.0
    starts: dict[str, Callable[[], Contestant]] = {
        "smmf": lambda: Smmf({"echo": echo(tokens=16)}),
        "fastapi": lambda: FastApi(16),
        "standard": lambda: FastApi(16, "standard"),
        "bare": lambda: FastApi(16, "standard", "bare"),
    }
    for name, start_one in starts.items():
        contestant = start_one()
        try:
            request = chat(contestant, 16, False)
            measure(contestant, closed(contestant, request, False, 16, 2000))
            plan = closed(contestant, request, False, 16, total)
            rounds = [measure(contestant, plan) for _ in range(3)]
        finally:
            contestant.stop()
        costs[name] = 1e6 * min(cpu_s for cpu_s, _, _ in rounds) / total
        for _, outcomes, wall_s in rounds:
            failed |= errors(outcomes)
            rate = rate or total / wall_s
    return {
        "clients": 16,
        "errors": failed,
        "cpu_us_per_request": costs["smmf"],
        "floor_us_per_request": costs["fastapi"],
        "standard_us_per_request": costs["standard"],
        "bare_us_per_request": costs["bare"],
        "ratio": costs["smmf"] / costs["fastapi"],
        "standard_ratio": costs["smmf"] / costs["standard"],
        "bare_ratio": costs["smmf"] / costs["bare"],
        "requests_per_s": rate,
    }


def first_token() -> Figures:
    """One client, one request after another: what is added to the engine's own time."""
    server = Smmf({"echo": echo(tokens=8)})
    try:
        request = chat(server, 8, True)
        measure(server, closed(server, request, True, 1, 100))
        _, outcomes, _ = measure(server, closed(server, request, True, 1, 1000))
    finally:
        server.stop()
    times = [o.first_s - o.due_s for o in outcomes]
    return {
        "errors": errors(outcomes),
        "first_token_p50_ms": quantile_ms(times, 0.5),
        "first_token_p99_ms": quantile_ms(times, 0.99),
    }


def streams_2000() -> Figures:
    """2,000 streams at once, opened over two seconds."""
    server = Smmf({"echo": echo(tokens=64, step_ms=50)})
    try:
        arrivals = [n / 1000 for n in range(2000)]
        plan = Plan(server.url + CHAT, chat(server, 64, True), True, arrivals_s=arrivals)
        cpu_s, outcomes, _ = measure(server, plan)
    finally:
        server.stop()
    got = sum(outcome.tokens for outcome in outcomes)
    return {
        "streams": len(outcomes),
        "errors": errors(outcomes),
        "cpu_us_per_token": 1e6 * cpu_s / max(1, got),
        "first_token_p99_ms": quantile_ms([o.first_s - o.due_s for o in outcomes], 0.99),
    }


def idle_10000() -> Figures:
    """10,000 idle keep-alive connections: the Router's memory for each, and it still answers."""
    server = Smmf({"echo": echo(tokens=8)})
    connections: list[socket.socket] = []
    try:
        router = next(p["pid"] for p in server.processes() if p.get("role") == "router")
        before = procfs.rss_bytes(router)
        head = f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode()
        answered = 0
        for _ in range(10_000):
            connection = socket.create_connection(("127.0.0.1", server.port))
            connection.sendall(head)
            answered += connection.recv(4096).startswith(b"HTTP/1.1 200")
            connections.append(connection)
        after = procfs.rss_bytes(router)
        _, outcomes, _ = measure(server, closed(server, chat(server, 8, True), True, 8, 200))
        for connection in connections:
            connection.sendall(head)
            answered += connection.recv(4096).startswith(b"HTTP/1.1 200")
    finally:
        for connection in connections:
            connection.close()
        server.stop()
    return {
        "connections": len(connections),
        "errors": errors(outcomes)
        | ({"unanswered": 20_000 - answered} if answered < 20_000 else {}),
        "bytes_per_connection": (after - before) / len(connections),
    }


def start() -> Figures:
    """`smmf serve` typed -> the first token of the demo model; the best of five."""
    times = [_start_once() for _ in range(5)]
    return {"start_to_first_token_s": min(times), "median_s": statistics.median(times)}


def _start_once() -> float:
    port, admin_port = free_port(), free_port()
    command = [sys.executable, "-m", "smmf_core.cli.main", "serve", "--name", f"bench-{port}"]
    command += ["--port", str(port), "--admin-port", str(admin_port)]
    folder = tempfile.mkdtemp(prefix="smmf-bench-")
    environment = {**os.environ, "XDG_RUNTIME_DIR": folder, "XDG_STATE_HOME": folder}
    quiet = subprocess.DEVNULL
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet, env=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        while get(url, "/health")[0] != 200:
            time.sleep(0.005)
        body: dict[str, Any] = {"model": "demo", "messages": MESSAGES, "stream": True}
        body["stream_options"] = {"include_usage": True}
        plan = Plan(url + CHAT, request_bytes("127.0.0.1", CHAT, body), True, 1, 1)
        sent = time.monotonic()
        outcome = Load(plan).run()[0]
        if outcome.error:
            raise RuntimeError(outcome.error)
        return sent - began + outcome.first_s
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def memory() -> Figures:
    """Resident memory of Controller and Router; PSS counts pages they share once."""
    server = Smmf({"echo": echo(tokens=8)})
    try:
        measure(server, closed(server, chat(server, 8, True), True, 8, 500))
        rows = [p for p in server.processes() if p.get("role") in ("controller", "router")]
        rss = {row["role"]: procfs.rss_bytes(row["pid"]) / 1e6 for row in rows}
        pss = sum(procfs.pss_bytes(row["pid"]) for row in rows) / 1e6
    finally:
        server.stop()
    return {"rss_mb": rss, "rss_sum_mb": sum(rss.values()), "pss_sum_mb": pss}


def _unary_cost(server: Contestant, total: int = 3000) -> float:
    request = chat(server, 8, False)
    measure(server, closed(server, request, False, 16, 300))
    costs = []
    for _ in range(3):
        cpu_s, outcomes, _ = measure(server, closed(server, request, False, 16, total))
        if errors(outcomes):
            raise RuntimeError(str(errors(outcomes)))
        costs.append(1e6 * cpu_s / total)
    return min(costs)


def growth_models() -> Figures:
    """Per-request CPU with 1 and with 1,000 registered models."""
    costs = {}
    for count in (1, 1000):
        others = {
            f"m{n}": echo(f"m{n}").replace("[deployment]", "[deployment]\nautostart = false")
            for n in range(1, count)
        }
        server = Smmf({"echo": echo(tokens=8), **others})
        try:
            costs[count] = _unary_cost(server)
        finally:
            server.stop()
    return {"us_with_1": costs[1], "us_with_1000": costs[1000], "ratio": costs[1000] / costs[1]}


SCENARIOS: dict[str, Callable[[], Figures]] = {
    scenario.__name__: scenario
    for scenario in (
        stream_flat, stream_paced_64, stream_paced_8, unary, first_token, streams_2000,
        idle_10000, start, memory, growth_models, growth_waiting, client_lane, tls,
    )
}  # fmt: skip
