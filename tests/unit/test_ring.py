"""The token ring from Python: every record length, wrap, full ring, reserved room, broken peers."""

from __future__ import annotations

import mmap
import os
import signal
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smmf_core.native import _ring

ADMIT, TOKENS, DATA, RESULT, FINISH, FAIL = 1, 2, 4, 5, 6, 7
SMALL = 4096
HEADER_BYTES = 448  # of the segment (csrc/FORMAT.md)
TAIL_AT, HEAD_AT = 64, 192

Record = tuple[int, int, int, int, int, bytes]


def record(payload: bytes, kind: int = TOKENS, key: int = 1, count: int = 0) -> Record:
    return kind, key, 0, 0, count, payload


class Ends:
    """A ring with both its ends in this process."""

    def __init__(self, capacity: int = SMALL, terminal_slots: int = 2) -> None:
        self.memfd = _ring.create(capacity, terminal_slots)
        self.data = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.space = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.writer = _ring.RingWriter(self.memfd, self.data, self.space)
        self.reader = _ring.RingReader(self.memfd, self.data, self.space)

    def close(self) -> None:
        self.writer.close()
        self.reader.close()
        for fd in (self.memfd, self.data, self.space):
            os.close(fd)

    def poke(self, at: int, data: bytes) -> None:
        """What a broken peer would do."""
        with mmap.mmap(self.memfd, 0) as memory:
            memory[at : at + len(data)] = data


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("capacity", "slots"),
    [(0, 1), (4095, 1), (5000, 1), (2048, 0), (4096, 4), (1 << 31, 1), (-1, 1), (4096, -1)],
)
def test_bad_sizes_are_refused(capacity: int, slots: int) -> None:
    with pytest.raises(ValueError):
        _ring.create(capacity, slots)


def test_what_is_no_ring_is_refused() -> None:
    for content in (b"", b"x" * 10000):
        fd = os.memfd_create("other")
        os.write(fd, content)
        for end in (_ring.RingReader, _ring.RingWriter):
            with pytest.raises(OSError, match="Protocol error"):
                end(fd, -1, -1)
        os.close(fd)


def test_a_record_arrives_as_it_was_written(ends: Ends) -> None:
    sent: list[Record] = [
        (ADMIT, 2**64 - 1, 65535, 2**32 - 1, 7, b"\0\0\0\0"),
        (TOKENS, 0, 0, 0, 2**32 - 1, b""),
        (FAIL, 5, 1, 2, 3, b"x" * (_ring.TERMINAL_BYTES - 24)),
    ]
    assert ends.writer.write(sent) == 3
    assert ends.reader.drain() == sent
    assert ends.reader.drain() == []
    assert ends.writer.used_bytes == 0
    assert ends.writer.free_bytes == SMALL


@pytest.mark.parametrize("start", [0, 8, 24, 496])
def test_every_length_wraps(ends: Ends, start: int) -> None:
    if start:
        ends.writer.write([record(b"s" * (start - 24 if start > 24 else 0))])
        ends.reader.drain()
    for length in range(700):
        sent = record(bytes([length % 251]) * length, count=length)
        for _ in range(SMALL // (length + 24) + 1):  # once around
            assert ends.writer.write([sent]) == 1
            assert ends.reader.drain() == [sent]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3000), max_size=8), max_size=30), st.integers(1, 9))
def test_any_pattern_of_writes_and_drains_keeps_order(sizes: list[list[int]], limit: int) -> None:
    ends = Ends()
    sent: list[Record] = []
    got: list[Record] = []
    waiting: list[Record] = []
    for turn in sizes:
        for size in turn:
            sent.append(record(bytes([size % 256]) * size, DATA, key=size, count=len(sent)))
            waiting.append(sent[-1])
        del waiting[: ends.writer.write(waiting)]
        got += ends.reader.drain(limit)
    while waiting or len(got) < len(sent):
        del waiting[: ends.writer.write(waiting)]
        got += ends.reader.drain()
    assert got == sent
    ends.close()


def test_a_record_larger_than_the_ring_continues(ends: Ends) -> None:
    big = record(os.urandom(50 * SMALL + 13), RESULT)
    after = record(b"after")
    waiting, got = [big, after], []
    while waiting:
        del waiting[: ends.writer.write(waiting)]
        got += ends.reader.drain()
    assert got == [big, after]


def test_a_half_written_record_may_be_abandoned(ends: Ends) -> None:
    assert ends.writer.write([record(b"x" * 20000, RESULT, key=9)]) == 0
    assert ends.writer.write([record(b"why", FAIL, key=9)]) == 1
    assert ends.reader.drain() == [record(b"why", FAIL, key=9)]
    whole = record(b"y" * 20000, RESULT, key=9)
    got: list[Record] = []
    waiting = [whole]
    while waiting:
        del waiting[: ends.writer.write(waiting)]
        got += ends.reader.drain()
    assert got == [whole]


@pytest.mark.parametrize("slots", [0, 1, 3])
def test_terminal_records_find_room_in_a_full_ring(slots: int) -> None:
    for offset in range(0, SMALL, 256):
        ends = Ends(terminal_slots=slots)
        while offset > 0:
            ends.writer.write([record(b"")])
            ends.reader.drain()
            offset -= 24
        full = [record(b"t" * 10)] * 1000
        assert ends.writer.write(full) < 1000
        last = record(b"f" * (_ring.TERMINAL_BYTES - 24), FAIL)
        assert ends.writer.write([last] * slots) == slots
        assert ends.reader.drain()[-slots:] == [last] * slots or slots == 0
        ends.close()


def test_full_counts_and_rings_the_writer_once_there_is_room(ends: Ends) -> None:
    assert ends.writer.write([record(b"x" * 100)] * 100) < 100
    assert ends.reader.full == 1
    assert not _ring.wait([ends.space], 0)
    ends.reader.drain()
    assert _ring.wait([ends.space], 0)
    _ring.drain_eventfd(ends.space)
    assert ends.writer.write([record(b"x")]) == 1
    ends.reader.drain()
    assert not _ring.wait([ends.space], 0)  # nobody waits: no bell


def test_the_doorbell_rings_only_for_a_sleeper(ends: Ends) -> None:
    ends.writer.write([record(b"1")])
    assert not _ring.wait([ends.data], 0)
    assert not ends.reader.arm()  # there is something: no sleep
    ends.reader.drain()
    assert ends.reader.arm()
    ends.writer.write([record(b"2"), record(b"3")])
    ends.writer.write([record(b"4")])
    assert struct.unpack("Q", os.read(ends.data, 8)) == (1,)


def test_a_drain_limit_leaves_the_rest(ends: Ends) -> None:
    sent = [record(bytes([i])) for i in range(9)]
    ends.writer.write(sent)
    assert ends.reader.drain(4) == sent[:4]
    assert not ends.reader.arm()
    assert ends.reader.drain() == sent[4:]


def test_steps_are_seen_at_the_other_end(ends: Ends) -> None:
    ends.writer.step(2**63)
    assert ends.reader.steps == 2**63


@pytest.mark.parametrize(
    "bad",
    [
        record(b"", 0),
        record(b"", 10),
        record(b"x" * 489, FAIL),
        (TOKENS, -1, 0, 0, 0, b""),
        (TOKENS, 1, 65536, 0, 0, b""),
        (TOKENS, 1, 0, 0, 0, "text"),
        (TOKENS, 1, 0, 0, 0, None),
    ],
)
def test_what_no_record_may_hold_is_refused(ends: Ends, bad: Any) -> None:
    with pytest.raises((ValueError, OverflowError, TypeError)):
        ends.writer.write([record(b"good"), bad])
    assert ends.reader.drain() == []


def header(size: int, kind: int = TOKENS, flags: int = 0) -> bytes:
    return struct.pack("<IBBHQII", size, kind, flags, 0, 1, 0, 0)


@pytest.mark.parametrize(
    "start",
    [
        header(0),
        header(23),
        header(4096),
        header(2**32 - 1),
        header(24, kind=10),
        header(0, kind=0),
        header(2**32 - 8, kind=0),
        header(24, flags=2),  # continues what never began
    ],
)
def test_a_malformed_record_is_an_error_not_a_crash(ends: Ends, start: bytes) -> None:
    ends.writer.write([record(b"good"), record(b"12345678")])
    ends.poke(HEADER_BYTES + 32, start)
    with pytest.raises(RuntimeError, match="malformed"):
        ends.reader.drain()
    with pytest.raises(RuntimeError, match="malformed"):
        ends.reader.arm()


@pytest.mark.parametrize("tail", [2**64 - 8, SMALL + 8, 4])
def test_an_impossible_tail_is_an_error(ends: Ends, tail: int) -> None:
    ends.poke(TAIL_AT, struct.pack("<Q", tail))
    with pytest.raises(RuntimeError, match="malformed"):
        ends.reader.drain()


def test_an_impossible_head_does_not_lead_the_writer_astray(ends: Ends) -> None:
    ends.poke(HEAD_AT, struct.pack("<Q", 64))  # ahead of the tail
    assert ends.writer.write([record(b"x")]) == 0


@settings(max_examples=150, deadline=None)
@given(st.binary(min_size=64, max_size=SMALL), st.integers(0, SMALL // 8))
def test_noise_never_crashes_the_reader(noise: bytes, words: int) -> None:
    ends = Ends()
    ends.poke(HEADER_BYTES, noise)
    ends.poke(TAIL_AT, struct.pack("<Q", words * 8))
    try:
        for kind, *_ in ends.reader.drain():
            assert 1 <= kind <= 9
    except RuntimeError:
        pass
    ends.close()


def test_closed_ends_say_so(ends: Ends) -> None:
    ends.writer.close()
    ends.reader.close()
    for use in (
        lambda: ends.writer.write([]),
        lambda: ends.writer.step(1),
        ends.reader.drain,
        ends.reader.arm,
    ):
        with pytest.raises(ValueError, match="closed"):
            use()


def test_wait_times_out_wakes_and_refuses_bad_descriptors(ends: Ends) -> None:
    assert not _ring.wait([], 0.000_001)
    assert not _ring.wait([ends.data, ends.space], 0)
    os.eventfd_write(ends.space, 1)
    assert _ring.wait([ends.data, ends.space], None)
    _ring.drain_eventfd(ends.space)
    _ring.drain_eventfd(ends.space)  # an empty one is fine
    with pytest.raises(OSError, match="Bad file descriptor"):
        _ring.drain_eventfd(-1)


def test_wait_releases_the_interpreter(ends: Ends) -> None:
    rung = threading.Thread(target=os.eventfd_write, args=(ends.data, 1))
    rung.start()
    assert _ring.wait([ends.data], 60)
    rung.join()


def test_a_signal_ends_a_wait_after_its_handler(ends: Ends) -> None:
    seen: list[int] = []
    former = signal.signal(signal.SIGALRM, lambda number, _: seen.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        assert not _ring.wait([ends.data], 60)
    finally:
        signal.signal(signal.SIGALRM, former)
    assert seen == [signal.SIGALRM]
