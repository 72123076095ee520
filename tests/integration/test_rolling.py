"""Replacing what serves: no request fails meanwhile; what was wanted outlives the Controller."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from server import Server, echo_toml

WAIT_S = 40.0


def until(condition: Callable[[], Any], what: str) -> None:
    limit = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < limit, what
        time.sleep(0.02)


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    (folder / "local-echo.toml").write_text(echo_toml(deployment={"memory_gib": 1.0}))
    started = Server(folder)
    yield started
    if started.process is not None and started.process.poll() is None:
        assert started.stop() == 0


@contextmanager
def clients(server: Server, count: int = 4) -> Iterator[list[tuple[int, bytes]]]:
    """They ask without a pause; the list has every answer that was not a 200."""
    failed: list[tuple[int, bytes]] = []
    answered = [0] * count
    is_over = threading.Event()

    def ask(number: int) -> None:
        while not is_over.is_set():
            status, _, body = server.chat(smmf_echo={"tokens": 5, "step_ms": 5})
            answered[number] += 1
            if status != 200:
                failed.append((status, body))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield failed
    finally:
        is_over.set()
        for thread in threads:
            thread.join(WAIT_S)
    assert all(answered)


def workers(server: Server) -> dict[str, int]:
    return {row["id"]: row["pid"] for row in server.admin("GET", "/admin/v1/instances")}


def write(server: Server, **sections: Any) -> None:
    (server.folder / "local-echo.toml").write_text(echo_toml(**sections))


@pytest.mark.parametrize("budget_gib", [3.0, 1.5], ids=["beside each other", "one at a time"])
def test_restart_and_reload_fail_no_request(server: Server, budget_gib: float) -> None:
    (server.folder / "smmf.toml").write_text(f"[memory]\nbudget_gib = {budget_gib}\n")
    server.start()
    before = workers(server)
    with clients(server) as failed:
        server.admin("POST", "/admin/v1/models/echo:restart", {})
        between = workers(server)
        write(server, deployment={"memory_gib": 1.0}, engine={"tokens": 7})
        server.admin("POST", "/admin/v1/reload", {})
        until(lambda: len(workers(server)) == 1, "one replica is left")
    assert failed == []
    assert len({*before.values(), *between.values(), *workers(server).values()}) == 3
    assert json.loads(server.chat()[2])["usage"]["completion_tokens"] == 7


def test_a_change_of_what_no_process_depends_on_replaces_none(server: Server) -> None:
    server.start()
    before = workers(server)
    write(server, deployment={"memory_gib": 1.0, "weight": 2.0}, inference={"max_tokens": 3})
    result = server.admin("POST", "/admin/v1/reload", {})
    assert result["changed"] == ["echo"]
    until(lambda: json.loads(server.chat()[2])["usage"]["completion_tokens"] == 3, "new defaults")
    assert workers(server) == before


def test_what_was_wanted_outlives_the_controller(server: Server, tmp_path: Path) -> None:
    """Also what the database did not hear: the run directory has it."""
    (tmp_path / "late.toml").write_text(echo_toml("late"))
    (server.folder / "local-other.toml").write_text(echo_toml("other"))
    server.start()
    server.admin("POST", "/admin/v1/models", {"path": str(tmp_path / "late.toml")})
    server.admin("POST", "/admin/v1/models/echo:scale", {"replicas": 2})
    server.admin("POST", "/admin/v1/models/other:stop", {})
    server.admin("PUT", "/admin/v1/aliases/nick", {"model": "late"})
    before = workers(server)
    assert sorted(before) == ["echo-0", "echo-1", "late-0"]
    assert server.process is not None
    server.process.kill()
    server.process.wait()
    server.start(wait=False)
    until(lambda: knows(server, "late"), "the new controller")
    until(lambda: status(server, "echo") == "ready", "adopted")
    assert workers(server) == before
    assert status(server, "other") == "stopped"
    assert server.admin("GET", "/admin/v1/models/nick")["name"] == "late"


def knows(server: Server, name: str) -> bool:
    try:
        return status(server, name) == "ready"
    except (OSError, AssertionError):
        return False


def status(server: Server, name: str) -> str:
    found: str = server.admin("GET", f"/admin/v1/models/{name}")["status"]
    return found
