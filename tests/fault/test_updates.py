"""smmf is updated under a running server: what it starts from then on speaks another protocol."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from server import Server, echo_toml

SITE = """
import pathlib
if pathlib.Path({flag!r}).exists():
    import smmf_core.messages
    smmf_core.messages.PROTOCOL += 1
"""


def test_a_worker_of_another_protocol_fails_and_says_what_to_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag = folder / "updated"
    (folder / "sitecustomize.py").write_text(SITE.format(flag=str(flag)))
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    (folder / "local-echo.toml").write_text(echo_toml())
    server = Server(folder).start()
    flag.touch()
    os.kill(server.pid_of("worker"), signal.SIGKILL)
    until = time.monotonic() + 20
    while (status := server.chat())[0] != 503 or b"smmf was updated" not in status[2]:
        assert time.monotonic() < until, status
        time.sleep(0.1)
    time.sleep(1)  # in which it would be started again, twice
    events = server.admin("GET", "/admin/v1/events?instance=echo-0")
    assert [event["state"] for event in events].count("starting") == 2
    assert "retry-after" not in status[1]
    assert server.stop() == 0
