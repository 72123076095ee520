"""A writer killed at full speed leaves no torn record: what is published is whole and in order."""

from __future__ import annotations

import os
import random
import signal
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import pytest

from smmf_core.native import _ring

ROOT = Path(__file__).parent.parent.parent
ROUNDS = 36
CAPACITY = 1 << 14  # small: it wraps every few dozen records
DATA = 4

# Numbered records of random length, a checksum in front; some are larger than the ring.
WRITER = """
import os, random, struct, sys, zlib
from smmf_core.native import _ring
memfd, data, space, seed = map(int, sys.argv[1:])
writer = _ring.RingWriter(memfd, data, space)
pick = random.Random(seed)
noise = pick.randbytes(1 << 16)
number, waiting = 0, []
while True:
    while len(waiting) < 16:
        length = pick.choice((0, 1, 7, 8, 100, 300, 2000, 40000))
        body = struct.pack("<Q", number) + noise[: pick.randint(0, length)]
        waiting.append((4, number % 5, 0, 0, number, struct.pack("<I", zlib.crc32(body)) + body))
        number += 1
    written = writer.write(waiting)
    del waiting[:written]
    if waiting and not written:
        _ring.wait([space], 0.01)
        _ring.drain_eventfd(space)
"""


def check(records: list[tuple[int, int, int, int, int, bytes]], first: int) -> int:
    for kind, key, _, _, count, payload in records:
        checksum, number = struct.unpack_from("<IQ", payload)
        assert (kind, key, count, number) == (DATA, first % 5, first, first)
        assert zlib.crc32(payload[4:]) == checksum
        first += 1
    return first


def read_until_death(reader: _ring.RingReader, data: int, pidfd: int, delay_s: float) -> int:
    """Read as fast as records come; the writer dies `delay_s` after the first. How many records."""
    number, killer = 0, None
    while not _ring.wait([pidfd], 0):
        number = check(reader.drain(), number)
        if number and killer is None:
            kill = signal.pidfd_send_signal
            killer = threading.Timer(delay_s, kill, (pidfd, signal.SIGKILL))
            killer.start()
        if reader.arm():
            assert _ring.wait([data, pidfd], 30), "no wake-up"
            _ring.drain_eventfd(data)
    number = check(reader.drain(), number)
    assert killer is not None
    killer.join()
    return number


def survives_a_kill(seed: int) -> int:
    """One writer's life. How many records were read of it."""
    memfd = _ring.create(CAPACITY, 2)
    data, space = (os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(2))
    reader = _ring.RingReader(memfd, data, space)
    command = [sys.executable, "-c", WRITER, str(memfd), str(data), str(space), str(seed)]
    with subprocess.Popen(command, pass_fds=(memfd, data, space), cwd=ROOT) as writer:
        pidfd = os.pidfd_open(writer.pid)
        number = read_until_death(reader, data, pidfd, random.Random(seed).uniform(0, 0.01))
        assert writer.wait() == -signal.SIGKILL
    assert reader.drain() == []
    assert reader.arm()  # nothing is left that could be mistaken for a record
    reader.close()
    for fd in (memfd, data, space, pidfd):
        os.close(fd)
    return number


@pytest.mark.parametrize("part", range(4))
def test_no_torn_record_is_ever_seen(part: int) -> None:
    for seed in range(part * ROUNDS // 4, (part + 1) * ROUNDS // 4):
        assert survives_a_kill(seed) > 0
