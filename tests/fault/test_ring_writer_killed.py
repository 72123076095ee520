"""A writer killed at full speed leaves no torn record: what is published is whole and in order."""

from __future__ import annotations

import os
import random
import signal
import struct
import subprocess
import sys
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


def survives_a_kill(seed: int) -> int:
    """Read while the writer runs, kill it at a random moment, read the rest. How many records."""
    pick = random.Random(seed)
    memfd = _ring.create(CAPACITY, 2)
    data, space = (os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(2))
    reader = _ring.RingReader(memfd, data, space)
    command = [sys.executable, "-c", WRITER, str(memfd), str(data), str(space), str(seed)]
    fds = (memfd, data, space)
    with subprocess.Popen(command, pass_fds=fds, cwd=ROOT) as writer:
        number, stop_at = 0, pick.randint(1, 3000)
        while number < stop_at:
            number = check(reader.drain(pick.randint(1, 64)), number)
            if number < stop_at and reader.arm():
                assert _ring.wait([data], 30), "no wake-up"
                _ring.drain_eventfd(data)
        writer.send_signal(signal.SIGKILL)
        assert writer.wait() == -signal.SIGKILL
    rest = reader.drain()
    number = check(rest, number)
    assert reader.drain() == []
    assert reader.arm()  # nothing is left that could be mistaken for a record
    reader.close()
    for fd in fds:
        os.close(fd)
    return number


@pytest.mark.parametrize("part", range(4))
def test_no_torn_record_is_ever_seen(part: int) -> None:
    for seed in range(part * ROUNDS // 4, (part + 1) * ROUNDS // 4):
        assert survives_a_kill(seed) > 0
