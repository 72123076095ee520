"""TokenWriter over a real ring: nothing is lost, reordered or unbounded when the ring is full."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from smmf_core import messages as m
from smmf_core.native._ring import RingReader, create, wait
from smmf_core.wire import token_stream
from smmf_core.wire.token_stream import TokenWriter


@pytest.fixture
def ends() -> Iterator[tuple[TokenWriter, RingReader]]:
    memfd = create(4096, 2)
    data_fd, space_fd = (os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2))
    yield TokenWriter(memfd, data_fd, space_fd), RingReader(memfd, data_fd, space_fd)
    for fd in (memfd, data_fd, space_fd):
        os.close(fd)


def tokens(key: int, number: int, choice: int = 0) -> m.Record:
    return m.TOKENS, key, 0, choice, 1, number.to_bytes(4, "little") + b"<%d>" % number


def finish(key: int) -> m.Record:
    return m.FINISH, key, 0, 0, 0, bytes(16)


def drain_all(writer: TokenWriter, reader: RingReader) -> list[m.Record]:
    """Read as a Router would until the writer has nothing left."""
    got: list[m.Record] = []
    while True:
        records = reader.drain()
        got += records
        if not records and not writer.is_blocked:
            return got
        writer.retry()


def text_and_ids(records: list[m.Record], key: int) -> tuple[bytes, list[int]]:
    text, ids = b"", []
    for kind, of, _, _, count, payload in records:
        if kind == m.TOKENS and of == key:
            ids += [int.from_bytes(payload[4 * n : 4 * n + 4], "little") for n in range(count)]
            text += payload[4 * count :]
    return text, ids


def test_a_full_ring_loses_and_reorders_nothing(ends: tuple[TokenWriter, RingReader]) -> None:
    writer, reader = ends
    for number in range(1000):
        assert writer.write([tokens(1, number), tokens(2, number)]) == []
    writer.write([finish(1), finish(2)])
    assert writer.is_blocked
    records = drain_all(writer, reader)
    for key in (1, 2):
        text, ids = text_and_ids(records, key)
        assert ids == list(range(1000))
        assert text == b"".join(b"<%d>" % number for number in range(1000))
        assert [r[0] for r in records if r[1] == key][-1] == m.FINISH


def test_waiting_text_is_merged_per_choice(ends: tuple[TokenWriter, RingReader]) -> None:
    writer, reader = ends
    for number in range(600):
        writer.write([tokens(1, number, choice=number % 2)])
    records = drain_all(writer, reader)
    assert len(records) < 150
    for choice in (0, 1):
        _, ids = text_and_ids([r for r in records if r[3] == choice], 1)
        assert ids == list(range(choice, 600, 2))


def test_the_space_eventfd_tells_when_there_is_room(ends: tuple[TokenWriter, RingReader]) -> None:
    writer, reader = ends
    while not writer.is_blocked:
        writer.write([tokens(1, 7)])
    assert not wait([writer.space_fd], 0)
    reader.drain()
    assert wait([writer.space_fd], 0)


def test_a_request_beyond_the_bound_fails_and_others_go_on(
    ends: tuple[TokenWriter, RingReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, reader = ends
    monkeypatch.setattr(token_stream, "OVERFLOW_BYTES", 10_000)
    failed: list[int] = []
    for number in range(3000):
        failed += writer.write([tokens(1, number)])
        if number < 100:
            failed += writer.write([tokens(2, number)])
    writer.write([finish(2)])
    assert failed == [1]
    records = drain_all(writer, reader)
    assert [r[0] for r in records if r[1] == 1][-1] == m.FAIL
    assert text_and_ids(records, 2)[1] == list(range(100))
    assert [r[0] for r in records if r[1] == 2][-1] == m.FINISH


def test_long_records_survive_a_full_ring(ends: tuple[TokenWriter, RingReader]) -> None:
    writer, reader = ends
    payload = os.urandom(2_000_000)  # also beyond OVERFLOW_BYTES: the bound is for streams
    writer.write([(m.RESULT, 5, 0, 0, 0, payload), finish(5)])
    records = drain_all(writer, reader)
    assert [r[0] for r in records] == [m.RESULT, m.FINISH]
    assert records[0][5] == payload
