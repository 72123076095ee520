"""The command line against a real server: what it reads, talks to, stops and shuts down."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import WAIT_S, read, said, smmf
from server import Server, echo_toml
from terminal import Terminal


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    echo = echo_toml("a", deployment={"replicas": 2}, engine={"text": "echo"})
    (tmp_path / "local-a.toml").write_text(echo)
    (tmp_path / "local-b.toml").write_text(echo_toml("b"))
    running = Server(tmp_path).start()
    yield running
    running.stop()


def test_list_show_and_ps(server: Server) -> None:
    assert [row["name"] for row in read(server, "list")] == ["a", "b"]
    assert {row["status"] for row in read(server, "list")} == {"ready"}
    shown = read(server, "show", "a")
    assert (shown["name"], shown["backend"]) == ("a", "echo")
    rows = read(server, "ps")
    assert sorted(row["id"] for row in rows) == ["a-0", "a-1", "b-0"]
    assert all(row["state"] == "ready" and row["pid"] > 0 for row in rows)
    every = read(server, "ps", "--all")
    assert sorted(row["role"] for row in every) == ["controller", "router", *["worker"] * 3]
    heading, *lines = said(server, "ps").splitlines()
    assert heading.split() == (
        ["ID", "MODEL", "STATE", "BACKEND", "DEVICE", "MEM", "IN-FLIGHT", "QUEUE", "TOK/S", "UNTIL"]
    )
    assert len(lines) == 3


def test_chat_by_argument_and_by_pipe(server: Server) -> None:
    assert said(server, "chat", "a", "say this back").strip() == "say this back"
    assert said(server, "chat", "a", stdin="and this").strip() == "and this"


def test_errors_are_one_line(server: Server) -> None:
    for arguments in (["show", "none"], ["stop", "none"], ["chat", "none", "hi"]):
        done = smmf(server, *arguments)
        assert done.returncode == 1
        assert done.stderr.startswith("smmf: ")
        assert done.stderr.count("\n") == 1
        assert "none" in done.stderr


def test_stop_returns_when_it_is_stopped(server: Server) -> None:
    said(server, "stop", "a-1")
    assert sorted(row["id"] for row in read(server, "ps")) == ["a-0", "b-0"]
    said(server, "stop", "a")
    assert [row["id"] for row in read(server, "ps")] == ["b-0"]
    assert {row["name"]: row["status"] for row in read(server, "list")}["a"] == "stopped"
    assert smmf(server, "chat", "a", "hi").returncode == 1
    assert said(server, "chat", "b", "hi") != ""


def test_serve_shows_a_terminal_how_far_loads_are(tmp_path: Path) -> None:
    (tmp_path / "local-a.toml").write_text(echo_toml("a", engine={"load_s": 2.5}))
    ours, theirs = os.openpty()
    running = Server(tmp_path)
    running.start(stderr=theirs)
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert running.stop() == 0
    assert "a-0" in shown
    assert "%  load" in shown
    assert running.log.read_text().startswith("smmf: ready on ")


def test_a_conversation_can_begin_anew(server: Server) -> None:
    command = [sys.executable, "-m", "smmf_core.cli.main", "chat", "a"]
    with Terminal(command, server.environment) as terminal:
        for typed, answer in (("one\n", "one"), ("/reset\n", ">>> "), ("/other\n", "/exit ends")):
            terminal.read_until(">>> ")
            terminal.shown = ""
            terminal.type(typed)
            terminal.read_until(answer)
        assert "forgets" in terminal.shown
        terminal.type("/exit\n")
        assert terminal.process.wait(WAIT_S) == 0


def test_serve_tells_what_is_loaded_and_what_an_operator_said(folder: Path) -> None:
    for name in ("a", "b", "c"):
        deployment = {"replicas": 2} if name == "b" else {}
        (folder / f"local-{name}.toml").write_text(echo_toml(name, deployment=deployment))
    for name in ("d", "e"):
        text = echo_toml(name, deployment={"autostart": False})
        (folder / f"local-{name}.toml").write_text(text)
    running = Server(folder).start()
    said(running, "stop", "a")
    said(running, "scale", "c", "0")
    said(running, "offline", "b-1")  # lasts as long as its process
    first = running.log.read_text()
    assert "(models: a, b, c; 2 load on their first request; admin " in first
    os.kill(running.pid_of("controller"), signal.SIGKILL)
    assert running.process is not None
    running.process.wait(WAIT_S)
    running.start(wait=False)
    deadline = time.monotonic() + WAIT_S
    while running.log.read_text().count("ready on") < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert running.stop() == 0
    told = running.log.read_text().removeprefix(first)
    assert "(models: b; 2 load on their first request; admin " in told
    assert "smmf: a is stopped (stopped by the operator); `smmf start a` starts it\n" in told
    assert "smmf: c is stopped (scaled to 0); `smmf scale c N` starts it\n" in told
    assert "smmf: b-1: offline; `smmf online INSTANCE` puts it into rotation\n" in told


def test_serve_of_models_that_load_on_demand_only(folder: Path) -> None:
    text = echo_toml("a", deployment={"autostart": False})
    (folder / "local-a.toml").write_text(text)
    running = Server(folder).start()
    assert running.stop() == 0
    assert "(1 model loads on its first request; admin " in running.log.read_text()


def test_serve_tells_that_its_registry_cannot_be_used(folder: Path) -> None:
    (folder / "local-a.toml").write_text(echo_toml("a"))
    (folder / "smmf.toml").write_text(f'[registry]\nurl = "sqlite:///{folder}/none/registry"\n')
    (folder / "none").write_text("")
    running = Server(folder).start()
    assert running.stop() == 0
    (line,) = [x for x in running.log.read_text().splitlines() if "registry's database" in x]
    assert "cannot be used" in line


def test_shutdown_ends_every_process(server: Server) -> None:
    pidfds = _pidfds(server)
    said(server, "shutdown")
    assert _all_ended(pidfds)
    assert smmf(server, "ps").returncode == 1


def test_shutdown_ends_a_server_whose_controller_died(server: Server) -> None:
    pidfds = _pidfds(server)
    os.kill(server.pid_of("controller"), signal.SIGKILL)
    assert server.process is not None
    server.process.wait(WAIT_S)
    said(server, "shutdown")
    assert _all_ended(pidfds)


def test_shutdown_by_name_does_not_need_the_admin_port(server: Server) -> None:
    pidfds = _pidfds(server)
    said(server, "shutdown", "--force", "--url", "http://127.0.0.1:1")
    assert _all_ended(pidfds)


def test_shutdown_of_a_name_leaves_others_alone(server: Server) -> None:
    done = smmf(server, "shutdown", "--name", "another")
    assert (done.returncode, done.stderr) == (
        1, "smmf: no server runs in the run directory of another\n"
    )  # fmt: skip
    assert smmf(server, "ps").returncode == 0
    pidfds = _pidfds(server)
    assert said(server, "shutdown", "--name", "default") == "default has ended\n"
    assert _all_ended(pidfds)


def _pidfds(server: Server) -> list[int]:
    return [os.pidfd_open(row["pid"]) for row in read(server, "ps", "--all")]


def _all_ended(pidfds: list[int]) -> bool:
    """Already, not after a while: the verb returns when the state is reached."""
    ended = [bool(select.select([fd], [], [], 0)[0]) for fd in pidfds]
    for fd in pidfds:
        os.close(fd)
    return all(ended)
