"""Streams from a real ring onto real sockets: the exact bytes, slow and broken clients, fencing."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smmf_core.native import _ring
from smmf_core.native._frames import Frame, StreamTable, escape_json

ADMIT, TOKENS, CHOICE_END, DATA, RESULT, FINISH, FAIL = range(1, 8)
STOP, LENGTH = 0, 1
OVERFLOW = 0
KEY, ATTEMPT = 7, 1
BOUND = 1 << 16
HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
PREFIX = b'data: {"index":'
REASONS = (b'"stop"', b'"length"', b'"tool_calls"', b'"content_filter"')

CHAT = Frame(b',"delta":{"content":"', b'"},"finish_reason":', b',"delta":{},"finish_reason":', b"}\n\n", REASONS, False)  # fmt: skip
COMPLETION = Frame(b',"text":"', b'","finish_reason":', b"", b"}\n\n", REASONS, True)


def chat(index: int, text: str) -> bytes:
    escaped = json.dumps(text, ensure_ascii=False)
    return f'data: {{"index":{index},"delta":{{"content":{escaped}}},"finish_reason":null}}\n\n'.encode()


def chat_end(index: int, reason: str = "stop") -> bytes:
    return f'data: {{"index":{index},"delta":{{}},"finish_reason":"{reason}"}}\n\n'.encode()


def completion(index: int, text: str, reason: str | None = None) -> bytes:
    body = f'"text":{json.dumps(text, ensure_ascii=False)},"finish_reason":{json.dumps(reason)}'
    return f'data: {{"index":{index},{body}}}\n\n'.encode()


def chunk(body: bytes) -> bytes:
    return f"{len(body):x}\r\n".encode() + body + b"\r\n"


class Bench:
    """A ring into a StreamTable into a socketpair."""

    def __init__(self) -> None:
        memfd = _ring.create(1 << 17, 4)
        self.fds = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(2)]
        self.writer = _ring.RingWriter(memfd, *self.fds)
        self.reader = _ring.RingReader(memfd, *self.fds)
        os.close(memfd)
        self.router, self.client = socket.socketpair()
        self.client.setblocking(False)
        self.table = StreamTable(BOUND)

    def close(self) -> None:
        self.writer.close()
        self.reader.close()
        self.router.close()
        self.client.close()
        for fd in self.fds:
            os.close(fd)

    def open(self, frame: Frame | None = CHAT, key: int = KEY, head: bytes = HEAD, first: bytes = b"", fd: int | None = None, chunked: bool = True) -> None:  # fmt: skip
        to = self.router.fileno() if fd is None else fd
        self.table.open(key, ATTEMPT, to, frame, PREFIX, head, first, chunked, 1.0)

    def put(self, kind: int, choice: int = 0, count: int = 0, payload: bytes = b"", key: int = KEY, attempt: int = ATTEMPT) -> None:  # fmt: skip
        assert self.writer.write([(kind, key, attempt, choice, count, payload)]) == 1

    def text(self, text: str, choice: int = 0, key: int = KEY) -> None:
        self.put(TOKENS, choice, 2, struct.pack("<2i", 5, -1) + text.encode(), key)

    def drain(self, now: float = 2.0) -> list[tuple[int, int, int, int, bytes]]:
        events: list[tuple[int, int, int, int, bytes]] = []
        self.table.drain(self.reader, now, events)
        return events

    def wire(self) -> bytes:
        """One turn of the Router; what the client has then."""
        self.drain()
        assert self.table.flush() == []
        return self.received()

    def received(self) -> bytes:
        got = b""
        while True:
            try:
                part = self.client.recv(1 << 20)
            except BlockingIOError:
                return got
            if not part:
                return got
            got += part


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def test_nothing_is_sent_before_admit(bench: Bench) -> None:
    bench.open(first=b"role\n\n")
    assert bench.wire() == b""
    assert bench.table.emitted(KEY) == (False, 0)
    bench.put(ADMIT, count=9)
    assert bench.drain() == [(KEY, ADMIT, 0, 9, b"")]
    assert bench.wire() == HEAD + chunk(b"role\n\n")
    assert bench.table.emitted(KEY) == (True, 0)


def test_a_chat_on_the_wire(bench: Bench) -> None:
    bench.open(first=b"role\n\n")
    bench.put(ADMIT)
    bench.text("He")
    assert bench.wire() == HEAD + chunk(b"role\n\n" + chat(0, "He"))
    bench.text("l")
    bench.text("lo")  # there together: one event
    assert bench.wire() == chunk(chat(0, "llo"))
    bench.text("!")
    bench.put(CHOICE_END, count=LENGTH)
    bench.put(FINISH, payload=b"usage")
    assert bench.drain() == [(KEY, FINISH, 0, 0, b"usage")]
    bench.table.append(KEY, b"data: [DONE]\n\n", True)
    body = chat(0, "!") + chat_end(0, "length") + b"data: [DONE]\n\n"
    assert bench.wire() == chunk(body) + b"0\r\n\r\n"
    assert bench.table.ended(KEY)
    assert bench.table.emitted(KEY) == (True, 8)


def test_a_completion_merges_its_finish_into_the_last_text(bench: Bench) -> None:
    bench.open(COMPLETION)
    bench.put(ADMIT)
    bench.text("a")
    assert bench.wire() == HEAD + chunk(completion(0, "a"))
    bench.text("b")
    bench.put(CHOICE_END, count=STOP)
    assert bench.wire() == chunk(completion(0, "b", "stop"))


def test_a_completion_whose_text_has_left_finishes_with_an_empty_one(bench: Bench) -> None:
    bench.open(COMPLETION)
    bench.put(ADMIT)
    bench.text("a", choice=1)
    assert bench.wire() == HEAD + chunk(completion(1, "a"))
    bench.put(CHOICE_END, choice=1, count=3)
    assert bench.wire() == chunk(completion(1, "", "content_filter"))


def test_two_choices_interleave_and_only_neighbours_merge(bench: Bench) -> None:
    bench.open(head=b"")
    for choice, text in ((0, "a"), (0, "b"), (1, "x"), (0, "c"), (12, "y"), (12, "z")):
        bench.text(text, choice)
    bench.put(CHOICE_END, 0)
    body = chat(0, "ab") + chat(1, "x") + chat(0, "c") + chat(12, "yz") + chat_end(0)
    assert bench.wire() == chunk(body)


def test_tokens_without_text_make_no_event_but_count(bench: Bench) -> None:
    bench.open(head=b"")
    bench.put(TOKENS, count=3, payload=bytes(12))
    bench.put(TOKENS, count=2**32 - 1, payload=b"abc")  # a count that the payload cannot hold
    assert bench.wire() == b""
    assert bench.table.emitted(KEY) == (False, 2**32 + 2)


def test_without_chunks_there_is_no_framing(bench: Bench) -> None:
    bench.open(chunked=False)
    bench.put(ADMIT)
    bench.text("a")
    assert bench.wire() == HEAD + chat(0, "a")
    bench.table.append(KEY, b"", True)
    assert bench.wire() == b""
    assert bench.table.ended(KEY)


def test_an_end_alone_is_the_last_chunk(bench: Bench) -> None:
    bench.open(head=b"")
    bench.table.append(KEY, b"", True)
    assert not bench.table.ended(KEY)
    assert bench.wire() == b"0\r\n\r\n"
    assert bench.table.ended(KEY)


def test_bytes_without_a_socket_come_back(bench: Bench) -> None:
    bench.open(fd=-1)
    bench.put(ADMIT)
    bench.text("a")
    bench.drain()
    assert bench.table.flush() == [(KEY, HEAD + chunk(chat(0, "a")))]
    assert bench.table.flush() == []
    bench.table.append(KEY, b"z", True)
    assert bench.table.flush() == [(KEY, chunk(b"z") + b"0\r\n\r\n")]


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
    with pytest.raises(BlockingIOError):
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
    sent = [(TOKENS, 0, 1, b"\1\0\0\0hi"), (DATA, 1, 2, b"d"), (CHOICE_END, 1, 2, b""), (RESULT, 0, 0, b"r" * 90000), (FAIL, 0, 0, b"why")]  # fmt: skip
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
    assert bench.table.stats(KEY) == (1.0, 0.0, 0.0, 0.0, 0)
    bench.put(ADMIT)
    bench.drain(2.0)
    bench.text("a")
    bench.drain(3.0)
    bench.put(DATA, count=5)
    bench.drain(4.5)
    assert bench.table.stats(KEY) == (1.0, 2.0, 3.0, 4.5, 7)
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


def test_a_broken_ring_is_an_error(bench: Bench) -> None:
    bench.reader.close()
    with pytest.raises(ValueError, match="closed"):
        bench.drain()


@given(st.text())
def test_escaped_text_reads_back(text: str) -> None:
    escaped = escape_json(text.encode("utf-8", "replace"))
    assert json.loads(b'"' + escaped + b'"') == text.encode("utf-8", "replace").decode()
    assert not any(byte < 0x20 or byte == 0x7F for byte in escaped)


@given(st.binary())
def test_any_bytes_become_valid_json(data: bytes) -> None:
    read = json.loads(b'"' + escape_json(data) + b'"')
    try:
        assert read == data.decode()
    except UnicodeDecodeError:
        assert "\ufffd" in read


@pytest.mark.parametrize("at", range(20))
@pytest.mark.parametrize(
    "code", [*range(0x20), 0x22, 0x5C, 0x7F, 0x80, 0xFF, 0x7FF, 0xFFFF, 0x10FFFF]
)
def test_every_special_character_at_every_place(at: int, code: int) -> None:
    text = "abcdefghijklmnopqrstuvwxyz"[:at] + chr(code) + "0123456789~ !#["
    escaped = escape_json(text.encode())
    assert json.loads(b'"' + escaped + b'"') == text


@pytest.mark.parametrize(
    "broken", [b"\x80", b"\xc0\xaf", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xf0\x80\x80\x80", b"\xf4\x90\x80\x80", b"\xf8", b"\xc3", b"\xe2\x82"]
)  # fmt: skip
def test_broken_utf8_is_replaced_byte_by_byte(broken: bytes) -> None:
    assert escape_json(b"a" + broken) == b"a" + "\ufffd".encode() * len(broken)


texts = st.tuples(st.integers(0, 2), st.text(st.characters(exclude_categories=["Cs"]), max_size=40))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(texts, max_size=6), max_size=6))
def test_each_choice_reads_its_text_whatever_the_turns(turns: list[list[tuple[int, str]]]) -> None:
    bench = Bench()
    bench.open(COMPLETION, head=b"", chunked=False)
    wire = b""
    for turn in turns:
        for choice, text in turn:
            bench.text(text, choice)
        wire += bench.wire()
    read = {0: "", 1: "", 2: ""}
    for event in wire.split(b"\n\n")[:-1]:
        parsed = json.loads(event.removeprefix(b"data: "))
        read[parsed["index"]] += parsed["text"]
    for choice, got in read.items():
        assert got == "".join(text for turn in turns for number, text in turn if number == choice)
    bench.close()
