"""Workers that live and do nothing: found out, ended by signals, replaced; what waits is served."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from server import Server, echo_toml
from test_workers import rest, stream, worker_pids

FOUND_S = 40.0  # on a loaded machine; hang_s or heartbeat_s, then 5 s from TERM to KILL
HEARTBEAT = "[health]\nheartbeat_s = 5\n"


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    (folder / "local-echo.toml").write_text(echo_toml())
    (folder / "smmf.toml").write_text("[timeouts]\nhang_s = 6\n")
    server = Server(folder).start()
    yield server
    assert server.stop() == 0


def replaced(server: Server, former: int) -> bool:
    """Whether another process comes in its place."""
    until = time.monotonic() + FOUND_S
    while time.monotonic() < until:
        pids = worker_pids(server)
        if pids and former not in pids.values():
            return True
        time.sleep(0.1)
    return False


def told(server: Server, text: str) -> bool:
    events = server.admin("GET", "/admin/v1/events")
    return any(text in str(event) for event in events)


def test_a_step_that_never_ends_costs_its_worker_and_not_who_waits(server: Server) -> None:
    former = server.pid_of("worker")
    connection, _ = stream(server, smmf_echo={"tokens": 100, "fail": "hang:3"})
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(server.chat()[0]))
    asking.start()
    assert replaced(server, former)
    assert b'"code":"worker_lost"' in rest(connection)
    asking.join(FOUND_S)
    assert answers == [200]
    assert told(server, "it hangs: no word for")
    assert [row["restarts"] for row in server.instances() if row.get("model")] == [1]


def test_one_that_was_stopped_by_a_signal_does_not_hold_up_its_restart(server: Server) -> None:
    former = server.pid_of("worker")
    os.kill(former, signal.SIGSTOP)
    server.admin("POST", "/admin/v1/models/echo:restart", {"wait": False})
    assert replaced(server, former)
    server.wait_ready()
    assert server.chat()[0] == 200


def test_one_whose_heartbeat_is_lost_is_replaced(folder: Path) -> None:
    (folder / "local-echo.toml").write_text(echo_toml())
    (folder / "smmf.toml").write_text(HEARTBEAT)
    server = Server(folder).start()
    former = server.pid_of("worker")
    os.kill(former, signal.SIGSTOP)
    assert replaced(server, former)
    assert told(server, "heartbeat")
    server.wait_ready()
    assert server.chat()[0] == 200
    assert server.stop() == 0


def test_a_model_in_back_off_tells_when_it_starts_again(folder: Path) -> None:
    (folder / "local-echo.toml").write_text(echo_toml(engine={"fail": "load"}))
    server = Server(folder).start(wait=False)
    server.wait_admin()
    until = time.monotonic() + FOUND_S
    while (status := server.chat())[0] != 503 or b"starts again in" not in status[2]:
        assert time.monotonic() < until, status
        time.sleep(0.1)
    assert 1 <= int(status[1]["retry-after"]) <= 10
    assert b'"code":"model_unavailable"' in status[2]
    server.stop()
