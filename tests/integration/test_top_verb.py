"""`smmf top` against a real server: on a terminal, into a pipe, for programs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from server import Server
from terminal import WAIT_S, Terminal


def command(*flags: str) -> list[str]:
    return [sys.executable, "-m", "smmf_core.cli.main", "top", *flags]


def said(server: Server, *flags: str) -> str:
    done = subprocess.run(
        command(*flags),
        env=server.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_sample_for_programs(server: Server) -> None:
    found = json.loads(said(server, "--json"))
    assert (found["models"], found["models_ready"]) == (1, 1)
    assert [row["id"] for row in found["instances"]] == ["echo-0", "echo-1"]
    assert found["mem"] > 1 << 20


@pytest.mark.parametrize("flags", [["--once"], []])
def test_one_sample_into_a_pipe(server: Server, flags: list[str]) -> None:
    summary, headings, *rows = said(server, *flags).splitlines()
    assert summary.startswith("default: ok, up ")
    assert headings.split()[:2] == ["ID", "STATE"]
    assert [row.split()[:2] for row in rows] == [["echo-0", "ready"], ["echo-1", "ready"]]


@pytest.mark.parametrize(("columns", "key"), [(100, "q"), (24, "q"), (100, "\x03"), (100, "\x1b")])
def test_on_a_terminal_until_a_key(server: Server, columns: int, key: str) -> None:
    with Terminal(command("-i", "0.1"), server.environment, columns=columns) as terminal:
        shown = terminal.read_until("echo-1")
        assert ("DEVICE" in shown) == (columns == 100)
        terminal.type(key)
        assert terminal.process.wait(WAIT_S) == 0
        assert terminal.current_settings() == terminal.settings


def test_a_server_that_went_away_is_waited_for(server: Server) -> None:
    """The address of none: the first sample is an error, told in one line."""
    environment = {**server.environment, "SMMF_URL": "http://127.0.0.1:1"}
    with Terminal(command(), environment) as terminal:
        terminal.read_until("smmf: no server at http://127.0.0.1:1")
        assert terminal.process.wait(WAIT_S) == 1
