"""A token's way through the native core: ring, frames, histogram."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from smmf_core.native._frames import Frame, StreamTable, escape_json
from smmf_core.native._histogram import Histogram
from smmf_core.native._ring import RingReader, RingWriter, create

STREAMS = 64  # one token each per step
ADMIT, TOKENS = 1, 2
TEXT = b"\x07\x00\x00\x00 token"  # one id, then its text
CAPACITY_BYTES = 1 << 20
PENDING_BYTES = 1 << 20


class Ring:
    def __init__(self) -> None:
        memfd = create(CAPACITY_BYTES, STREAMS)
        flags = os.EFD_NONBLOCK | os.EFD_CLOEXEC
        self.events = os.eventfd(0, flags), os.eventfd(0, flags)
        self.writer = RingWriter(memfd, *self.events)
        self.reader = RingReader(memfd, *self.events)
        os.close(memfd)

    def close(self) -> None:
        self.writer.close()
        self.reader.close()
        for fd in self.events:
            os.close(fd)


@pytest.fixture
def ring() -> Iterator[Ring]:
    made = Ring()
    yield made
    made.close()


def step(kind: int, payload: bytes) -> list[tuple[int, int, int, int, int, bytes]]:
    return [(kind, key, 0, 0, 1, payload) for key in range(1, STREAMS + 1)]


def test_ring_write_and_drain_64_tokens(benchmark: Any, ring: Ring) -> None:
    records = step(TOKENS, TEXT)

    def turn() -> int:
        ring.writer.write(records)
        return len(ring.reader.drain())

    assert benchmark(turn) == STREAMS


def test_ring_write_and_drain_one_token(benchmark: Any, ring: Ring) -> None:
    records = step(TOKENS, TEXT)[:1]

    def turn() -> int:
        ring.writer.write(records)
        return len(ring.reader.drain())

    assert benchmark(turn) == 1


def table(fd: int) -> StreamTable:
    reasons = (b'"stop"', b'"length"', b'"tool_calls"', b'"content_filter"')
    frame = Frame(
        b',"delta":{"content":"', b'"},"finish_reason":', b',"delta":{},"finish_reason":',
        b"}]}\n\n", reasons, False,
    )  # fmt: skip
    made = StreamTable(PENDING_BYTES)
    prefix = b'data: {"id":"chatcmpl-0","object":"chat.completion.chunk","choices":[{"index":'
    for key in range(1, STREAMS + 1):
        made.open(key, 0, fd, frame, prefix, b"", b"", True, 0.0)
    return made


def test_frames_drain_and_flush_64_tokens(benchmark: Any, ring: Ring) -> None:
    streams = table(-1)  # the bytes come back instead of being sent
    events: list[tuple[int, int, int, int, bytes]] = []
    ring.writer.write(step(ADMIT, b"\x00\x00\x00\x00"))
    streams.drain(ring.reader, 0.0, events)
    streams.flush()
    records = step(TOKENS, TEXT)

    def turn() -> int:
        ring.writer.write(records)
        streams.drain(ring.reader, 0.0, events)
        return len(streams.flush())

    assert benchmark(turn) == STREAMS


@pytest.mark.parametrize("text", [b"plain text " * 100, b'"quoted"\n\\ \xc3\xa9 ' * 100])
def test_escape_json(benchmark: Any, text: bytes) -> None:
    assert benchmark(escape_json, text)


def test_histogram_record_64(benchmark: Any) -> None:
    histogram = Histogram()
    values = [0.0001 * (i + 1) for i in range(STREAMS)]
    benchmark(histogram.record_many, values)
    assert histogram.count % STREAMS == 0


def test_histogram_quantile_and_merge(benchmark: Any) -> None:
    histogram, total = Histogram(), Histogram()
    histogram.record_many([0.0001 * i for i in range(1, 1000)])

    def turn() -> float:
        total.merge(histogram)
        return total.quantile(0.99)

    assert benchmark(turn) > 0
