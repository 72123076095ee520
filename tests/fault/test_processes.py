"""Processes: found by pid and start time, buried with what they leave behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from smmf_core.controller import process


def test_a_pid_alone_proves_nothing() -> None:
    started = process.start_time(os.getpid())
    assert started is not None
    assert process.find(os.getpid(), started + 1) is None
    found = process.find(os.getpid(), started)
    assert found is not None
    os.close(found.pidfd)
    assert process.start_time(0) is None


def test_memory_is_told_in_bytes() -> None:
    assert 1 << 20 < process.memory_bytes(os.getpid()) < 1 << 36
    assert process.memory_bytes(0) == 0


_FAMILY = """
import os, select, signal, sys, time
from pathlib import Path
from smmf_core.controller import process
process.become_subreaper()
log = Path(sys.argv[1])
code = "import os, time\\nif os.fork() == 0:\\n    time.sleep(600)\\nprint(1); os._exit(3)"
child = process.spawn([sys.executable, "-c", code], log)
select.select([child.pidfd], [], [])
stranger = os.fork()  # somebody's zombie, not a Process of ours
if stranger == 0:
    os._exit(0)
print(child.bury())
until = time.monotonic() + 30
while time.monotonic() < until:
    process.reap_strangers(set())
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        print("no one is left")
        break
    time.sleep(0.01)
"""


def test_a_childs_children_end_with_it_and_nobody_stays_a_zombie(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FAMILY, str(tmp_path / "log")], capture_output=True, text=True
    )
    assert done.stdout.splitlines() == ["exited with status 3", "no one is left"], done.stderr
