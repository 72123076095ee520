"""The end of a terminal: it ends the server that is attached to it, and no other."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from server import Server, echo_toml
from terminal import WAIT_S, Terminal


@pytest.fixture
def server(folder: Path) -> Server:
    """Not started: each test does so in its own way."""
    (folder / "local-echo.toml").write_text(echo_toml())
    return Server(folder)


@pytest.fixture
def pidfds() -> Iterator[list[int]]:
    opened: list[int] = []
    yield opened
    for fd in opened:
        os.close(fd)


def command(server: Server, *before: str) -> list[str]:
    serve = [sys.executable, "-m", "smmf_core.cli.main", "serve"]
    ports = ["--port", str(server.port), "--admin-port", str(server.admin_port)]
    return [*before, *serve, str(server.folder / "local-echo.toml"), *ports]


def ended(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def test_a_closed_terminal_ends_the_server(server: Server, pidfds: list[int]) -> None:
    with Terminal(command(server), server.environment) as terminal:
        terminal.read_until("smmf: ready on")
        server.wait_ready()
        pidfds += [os.pidfd_open(row["pid"]) for row in server.instances()]
        assert len(pidfds) == 3
        terminal.hang_up()
        assert terminal.process.wait(WAIT_S) == 0
        assert all(map(ended, pidfds))


def hang_up_and_see_it_reload(server: Server, pid: int) -> None:
    """The alias that its file has now is served soon."""
    model = server.folder / "local-echo.toml"
    model.write_text(model.read_text().replace("[model]\n", '[model]\naliases = ["other"]\n'))
    os.kill(pid, signal.SIGHUP)
    deadline = time.monotonic() + WAIT_S
    while server.chat(model="other")[0] != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_server_that_is_to_outlive_its_terminal_does(server: Server) -> None:
    nohup = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh"]  # the other one writes where it stands
    with Terminal(command(server, *nohup), server.environment) as terminal:
        server.wait_ready()
        terminal.hang_up()
        hang_up_and_see_it_reload(server, terminal.process.pid)
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.process.wait(WAIT_S) == 0


def test_without_a_terminal_sighup_reads_the_files_again(server: Server) -> None:
    with server.log.open("wb") as log:
        server.process = subprocess.Popen(
            command(server),
            env=server.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    server.wait_ready()
    hang_up_and_see_it_reload(server, server.process.pid)
    assert server.stop() == 0
