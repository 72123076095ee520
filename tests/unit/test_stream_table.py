"""The StreamTable's bookkeeping: slow and broken clients, fencing, times, what Python sees."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from streams import (
    ADMIT,
    ATTEMPT,
    BOUND,
    CHOICE_END,
    DATA,
    FAIL,
    FINISH,
    HEAD,
    KEY,
    OVERFLOW,
    RESULT,
    TOKENS,
    Bench,
    chat,
    chunk,
)

from smmf_core.messages import LENGTH


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def test_a_blocked_stream_gathers_and_goes_on_in_order(bench: Bench) -> None:
    bench.open(head=b"")
    bench.table.block(KEY)
    for text in "abc":
        bench.text(text)
        assert bench.wire() == b""
    bench.table.unblock(KEY)
    assert bench.wire() == chunk(chat(0, "abc"))
    bench.table.unblock(KEY)  # was not blocked
    assert bench.wire() == b""


def test_what_the_kernel_does_not_take_comes_back(bench: Bench) -> None:
    bench.router.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    bench.open(head=b"")
    body = b"x" * 60000
    bench.table.append(KEY, body, False)
    [(key, rest)] = bench.table.flush()
    assert key == KEY
    got = bench.received()
    assert 0 < len(got) < len(body)
    assert got + rest == chunk(body)
    bench.text("later")
    bench.drain()
    assert bench.table.flush() == []  # blocked
    bench.table.unblock(KEY)
    assert bench.wire() == chunk(chat(0, "later"))


def test_a_full_socket_takes_nothing_and_loses_nothing(bench: Bench) -> None:
    bench.router.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            bench.router.send(b"f" * 4096)
    bench.open()
    bench.put(ADMIT)
    bench.text("a")
    bench.drain()
    assert bench.table.flush() == [(KEY, HEAD + chunk(chat(0, "a")))]
    assert bench.table.emitted(KEY)[0]  # its owner has the bytes now


def test_a_closed_client_is_reported_once_without_a_signal(bench: Bench) -> None:
    bench.client.close()
    bench.open()
    bench.put(ADMIT)
    bench.text("a")
    bench.drain()
    assert bench.table.flush() == [(KEY, b"")]
    bench.text("b")
    bench.drain()
    assert bench.table.flush() == []


def test_records_of_others_change_nothing(bench: Bench) -> None:
    bench.open()
    bench.put(TOKENS, count=0, payload=b"former", attempt=ATTEMPT - 1)
    bench.put(FINISH, attempt=ATTEMPT + 1)
    bench.put(FAIL, key=KEY + 1)
    assert bench.drain() == []
    assert bench.table.flush() == []
    assert bench.table.late_records == 3
    bench.table.close(KEY)
    bench.text("late")
    assert bench.drain() == []
    assert bench.table.late_records == 4
    assert len(bench.table) == 0


def test_a_key_opened_again_is_a_new_stream(bench: Bench) -> None:
    bench.open(head=b"")
    bench.text("old")
    bench.drain()
    bench.open(head=b"")
    bench.text("new")
    assert bench.wire() == chunk(chat(0, "new"))
    assert len(bench.table) == 1


def test_a_stream_without_a_frame_goes_to_python(bench: Bench) -> None:
    bench.open(None, head=b"")
    sent = [
        (TOKENS, 0, 1, b"\1\0\0\0hi"),
        (DATA, 1, 2, b"d"),
        (CHOICE_END, 1, 2, b""),
        (RESULT, 0, 0, b"r" * 90000),
        (FAIL, 0, 0, b"why"),
    ]
    got = []
    for kind, choice, count, payload in sent:
        while not bench.writer.write([(kind, KEY, ATTEMPT, choice, count, payload)]):
            got += bench.drain()  # larger than a ring takes at once
    got += bench.drain()
    assert got == [(KEY, *record) for record in sent]
    assert bench.table.emitted(KEY) == (False, 3)


def test_a_framed_stream_still_shows_python_its_data(bench: Bench) -> None:
    bench.open(head=b"")
    bench.text("a")
    bench.put(DATA, 0, 4, b"structured")
    assert bench.drain() == [(KEY, DATA, 0, 4, b"structured")]
    bench.table.append(KEY, b"made\n\n", False)
    assert bench.wire() == chunk(chat(0, "a") + b"made\n\n")


def test_a_client_that_does_not_read_is_given_up_once(bench: Bench) -> None:
    bench.open(head=b"")
    bench.open(key=8, head=b"", fd=-1)
    bench.table.block(KEY)
    events = []
    for _ in range(100):
        bench.text("x" * (BOUND // 50))
        events += bench.drain()
    assert events == [(KEY, OVERFLOW, 0, 0, b"")]
    bench.put(DATA)
    bench.text("fine", key=8)
    assert bench.drain() == []
    assert bench.table.flush() == [(8, chunk(chat(0, "fine")))]


def test_what_python_appends_counts_too(bench: Bench) -> None:
    bench.open(None, head=b"")
    bench.table.block(KEY)
    bench.table.append(KEY, b"x" * (BOUND + 1), False)
    bench.put(DATA, 0, 1, b"more")
    assert bench.drain() == [(KEY, DATA, 0, 1, b"more"), (KEY, OVERFLOW, 0, 0, b"")]


def test_times_and_tokens_are_kept(bench: Bench) -> None:
    bench.open()
    assert bench.table.stats(KEY) == (1.0, 0.0, 0.0, 0.0, 0, -1)
    bench.put(ADMIT)
    bench.drain(2.0)
    bench.text("a")
    bench.drain(3.0)
    bench.put(DATA, count=5)
    bench.drain(4.5)
    bench.put(CHOICE_END, count=LENGTH)
    bench.drain(5.0)
    assert bench.table.stats(KEY) == (1.0, 2.0, 3.0, 4.5, 7, LENGTH)
    with pytest.raises(KeyError):
        bench.table.stats(KEY + 1)


def test_stale_streams_are_named(bench: Bench) -> None:
    bench.open(key=1)
    bench.open(key=2)
    bench.text("a", key=2)
    bench.drain(10.0)
    assert sorted(bench.table.stale(12.0, 5.0, 5.0)) == [1]  # opened at 1
    assert sorted(bench.table.stale(16.0, 5.0, 5.0)) == [1, 2]
    assert bench.table.stale(16.0, 0.0, 0.0) == []  # no limit
    bench.table.append(2, b"", True)
    assert bench.table.stale(99.0, 5.0, 5.0) == [1]


def test_unknown_keys_are_harmless(bench: Bench) -> None:
    bench.table.append(1, b"x", True)
    bench.table.block(1)
    bench.table.unblock(1)
    bench.table.close(1)
    assert bench.table.emitted(1) == (False, 0)
    assert not bench.table.ended(1)
    assert bench.table.flush() == []


def test_none_is_no_ring(bench: Bench) -> None:
    nothing: Any = None
    with pytest.raises(TypeError, match="incorrect type"):
        bench.table.drain(nothing, 2.0, [])


def test_a_broken_ring_is_an_error(bench: Bench) -> None:
    bench.reader.close()
    with pytest.raises(ValueError, match="closed"):
        bench.drain()


def test_a_quiet_stream_is_one_that_reads_and_has_heard_nothing(bench: Bench) -> None:
    bench.open(head=b"")
    assert bench.table.quiet(100.0, 15) == []  # no Worker has taken it
    bench.put(ADMIT)
    bench.put(TOKENS, payload=b"\0\0\0\0said", count=1)
    bench.drain(now=200.0)
    bench.table.flush()
    assert bench.table.quiet(215.0, 15) == []
    assert bench.table.quiet(215.5, 15) == [KEY]
    bench.table.append(KEY, b"still here", False)  # at the time that was told last
    assert bench.table.quiet(230.5, 15) == []
    assert bench.table.quiet(231.0, 15) == [KEY]
    bench.table.block(KEY)
    assert bench.table.quiet(300.0, 15) == []
    bench.table.unblock(KEY)
    bench.table.append(KEY, b"", True)
    assert bench.table.quiet(400.0, 15) == []


def test_a_record_that_tells_the_client_nothing_is_no_event(bench: Bench) -> None:
    bench.open(head=b"")
    bench.put(ADMIT)
    bench.put(TOKENS, payload=b"\0\0\0\0said", count=1)
    bench.drain(now=200.0)
    bench.table.flush()
    bench.text("")  # held back
    bench.drain(now=220.0)
    assert bench.table.quiet(220.0, 15) == [KEY]
    assert bench.table.stale(230.0, 15, 15) == []
