"""What must not be lost of API keys when the Controller, or all of a server, is killed while its
database cannot be written."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from server import Server, echo_toml
from store_suite import until

KEYS = "/admin/v1/keys"
CHAT = {"model": "echo", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "local-echo.toml").write_text(echo_toml(engine={"tokens": 3}))
    server = Server(tmp_path)
    yield server
    if server.process is not None:
        assert server.stop() == 0


def ask(server: Server, key: str) -> int:
    headers = {"Authorization": f"Bearer {key}"}
    return server.request("POST", "/v1/chat/completions", CHAT, headers)[0]


@pytest.mark.parametrize("all_die", [False, True])
def test_a_revoked_key_does_not_come_back(server: Server, tmp_path: Path, all_die: bool) -> None:
    server.start()
    server.wait_admin()
    gone = server.admin("POST", KEYS, {"name": "gone"})
    until(lambda: server.admin("GET", "/admin/v1/health")["registry"]["waiting"] == 0)
    file = tmp_path / "state" / "smmf" / "default" / "registry.db"
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    server.admin("DELETE", f"{KEYS}/{gone['id']}")
    made = server.admin("POST", KEYS, {"name": "made"})
    until(lambda: ask(server, gone["key"]) == 401)
    pids = [row["pid"] for row in server.instances() if row["role"] != "controller" and row["pid"]]
    assert server.process is not None
    server.process.kill()
    server.process.wait()
    for pid in pids if all_die else []:
        os.kill(pid, signal.SIGKILL)
    other.execute("ROLLBACK")
    other.close()
    server.start(wait=False)
    server.wait_admin()
    server.wait_ready()
    until(lambda: ask(server, made["key"]) == 200)
    assert ask(server, gone["key"]) == 401
    until(lambda: server.admin("GET", "/admin/v1/health")["registry"]["waiting"] == 0)
    assert server.stop() == 0
    server.start()
    assert (ask(server, made["key"]), ask(server, gone["key"])) == (200, 401)
    left = [path.name for path in server.run_dir.iterdir()]
    assert "keys.json" in left
    assert server.stop() == 0
    server.process = None
    left = [path.name for path in server.run_dir.iterdir()]
    assert not {"keys.json", "limits"}.intersection(left)
