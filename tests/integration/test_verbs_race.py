"""Verbs racing with each other, with requests and with crashes: each is answered, all converge."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from server import Server, echo_toml

RACE_S = 5.0
PAUSE_S = 0.05
EXPECTED = {200, 404, 409, 503}  # done; unknown or in the way of another verb; could not be had
MODELS = ("a", "b")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """`a` starts with the server; `b` loads on demand, and is unloaded after a second."""
    engine = {"tokens": 8, "step_ms": 2}
    (tmp_path / "local-a.toml").write_text(
        echo_toml("a", deployment={"replicas": 2}, engine=engine)
    )
    on_demand = {"autostart": False, "keep_alive": 1}
    b = echo_toml("b", deployment=on_demand, engine={**engine, "load_s": 0.3})
    (tmp_path / "local-b.toml").write_text(b)
    started = Server(tmp_path).start()
    yield started
    assert started.stop() == 0


def some_verb(chance: random.Random) -> tuple[str, dict[str, Any]]:
    model = chance.choice(MODELS)
    body: dict[str, Any] = {}
    verb = chance.choice(("start", "stop", "stop", "restart", "scale", "pin", "unpin"))
    if verb == "stop":
        body = {"force": chance.random() < 0.5}
    elif verb == "scale":
        body = {"replicas": chance.randrange(4)}
    if chance.random() < 0.4:
        verb = chance.choice(("start", "stop", "restart", "online", "offline"))
        return f"/admin/v1/instances/{model}-{chance.randrange(2)}:{verb}", {}
    return f"/admin/v1/models/{model}:{verb}", body


def say_verbs(server: Server, seed: int, until: float) -> list[tuple[str, int, Any]]:
    chance = random.Random(seed)
    told = []
    while time.monotonic() < until:
        path, body = some_verb(chance)
        told.append((path, *server.ask_admin("POST", path, body)))
        time.sleep(chance.random() * PAUSE_S)
    return told


def ask(server: Server, seed: int, until: float) -> list[int]:
    chance = random.Random(seed)
    codes = []
    while time.monotonic() < until:
        codes.append(server.chat(model=chance.choice(MODELS))[0])
        time.sleep(PAUSE_S)
    return codes


def kill_workers(server: Server, until: float) -> None:
    chance = random.Random(0)
    while time.monotonic() < until:
        pids = [row["pid"] for row in server.instances() if row["role"] == "worker" and row["pid"]]
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(pids), signal.SIGKILL)
        time.sleep(1.0)


@pytest.mark.parametrize("with_crashes", [False, True])
def test_every_verb_is_answered_and_all_models_come_back(
    server: Server, with_crashes: bool
) -> None:
    until = time.monotonic() + RACE_S
    with ThreadPoolExecutor() as pool:
        verbs = [pool.submit(say_verbs, server, seed, until) for seed in range(3)]
        requests = [pool.submit(ask, server, seed, until) for seed in range(2)]
        if with_crashes:
            pool.submit(kill_workers, server, until).result()
        told = [answer for future in verbs for answer in future.result()]
        codes = {code for future in requests for code in future.result()}
    assert [answer for answer in told if answer[1] not in EXPECTED] == []
    assert with_crashes or codes <= {200, 503}
    for model in MODELS:
        for instance in ("0", "1"):
            server.ask_admin("POST", f"/admin/v1/instances/{model}-{instance}:online", {})
        row = server.admin("POST", f"/admin/v1/models/{model}:start", {"replicas": 2})
        assert (row["status"], row["ready"], row["degraded"]) == ("ready", 2, False)
        assert server.chat(model=model)[0] == 200
