"""A ring's memory is freed with the last process that maps it, however that ends."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from smmf_core.native import _ring

ROOT = Path(__file__).parent.parent.parent
NAME = "memfd:smmf-ring"
WAIT_MS = 30_000

# Makes a ring, keeps the reading end, and starts two children: the writer, which is given the ring,
# and a bystander, which is not. Prints the pids of both.
MAKER = """
import signal, subprocess, sys
from smmf_core.native import _ring
memfd = _ring.create(1 << 16, 2)
reader = _ring.RingReader(memfd, -1, -1)
pause = "import signal; print('up', flush=True); signal.pause()"
write = '''
from smmf_core.native import _ring
writer = _ring.RingWriter(%d, -1, -1)
writer.write([(2, 1, 0, 0, 0, b"x" * 100)])
''' % memfd
for code, fds in ((write + pause, (memfd,)), (pause, ())):
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, pass_fds=fds)
    child.stdout.readline()
    print(child.pid, flush=True)
signal.pause()
"""


def identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def holders(ring: tuple[int, int]) -> set[int]:
    """Processes that have this memfd open or mapped."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            maps = (process / "maps").read_text().splitlines()
            held = any(NAME in line and line.split()[4] == str(ring[1]) for line in maps)
            held = held or any(identity(fd.stat()) == ring for fd in (process / "fd").iterdir())
        except OSError:  # it is ending, or one of its descriptors was a passing one
            continue
        if held:
            found.add(int(process.name))
    return found


def ring_of(pid: int) -> tuple[int, int]:
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        if NAME in os.readlink(fd):
            return identity(fd.stat())
    raise AssertionError("the process holds no ring")


def kill(pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    assert poller.poll(WAIT_MS)
    os.close(pidfd)


@pytest.mark.parametrize("first", ["maker", "writer"])
def test_no_ring_is_left_behind(first: str) -> None:
    command = [sys.executable, "-c", MAKER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as maker:
        assert maker.stdout is not None
        writer, bystander = int(maker.stdout.readline()), int(maker.stdout.readline())
        ring = ring_of(maker.pid)
        assert holders(ring) == {maker.pid, writer}
        order = [maker.pid, writer] if first == "maker" else [writer, maker.pid]
        kill(order[0])
        assert holders(ring) == {order[1]}
        kill(order[1])
        assert holders(ring) == set()
        kill(bystander)
    assert not [name for name in os.listdir("/dev/shm") if "smmf" in name]


def test_a_closed_ring_holds_nothing() -> None:
    memfd = _ring.create(1 << 16, 2)
    ring = identity(os.fstat(memfd))
    writer, reader = _ring.RingWriter(memfd, -1, -1), _ring.RingReader(memfd, -1, -1)
    os.close(memfd)
    writer.write([(2, 1, 0, 0, 0, b"still mapped")])
    assert holders(ring) == {os.getpid()}
    assert len(reader.drain()) == 1
    writer.close()
    reader.close()
    assert holders(ring) == set()
