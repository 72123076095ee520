"""A ring into a StreamTable into a socketpair: what tests of streams stand on."""

from __future__ import annotations

import json
import os
import socket
import struct

from smmf_core.native import _ring
from smmf_core.native._frames import Frame, StreamTable

ADMIT, TOKENS, CHOICE_END, DATA, RESULT, FINISH, FAIL, REASONING, TOOL = range(1, 10)
STOP, LENGTH = 0, 1
OVERFLOW = 0
KEY, ATTEMPT = 7, 1
BOUND = 1 << 16
HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
PREFIX = b'data: {"index":'
REASONS = (b'"stop"', b'"length"', b'"tool_calls"', b'"content_filter"')

CHAT = Frame(
    b',"delta":{"content":"',
    b'"},"finish_reason":',
    b',"delta":{},"finish_reason":',
    b"}\n\n",
    REASONS,
    False,
    (b',"delta":{"thought":"', b'","again":"', b'"},"finish_reason":'),
)
COMPLETION = Frame(b',"text":"', b'","finish_reason":', b"", b"}\n\n", REASONS, True)


def chat(index: int, text: str) -> bytes:
    delta = f'{{"content":{json.dumps(text, ensure_ascii=False)}}}'
    return f'data: {{"index":{index},"delta":{delta},"finish_reason":null}}\n\n'.encode()


def thought(index: int, text: str) -> bytes:
    said = json.dumps(text, ensure_ascii=False)
    delta = f'{{"thought":{said},"again":{said}}}'
    return f'data: {{"index":{index},"delta":{delta},"finish_reason":null}}\n\n'.encode()


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

    def open(
        self,
        frame: Frame | None = CHAT,
        key: int = KEY,
        head: bytes = HEAD,
        first: bytes = b"",
        fd: int | None = None,
        chunked: bool = True,
    ) -> None:
        to = self.router.fileno() if fd is None else fd
        self.table.open(key, ATTEMPT, to, frame, PREFIX, head, first, chunked, 1.0)

    def put(
        self,
        kind: int,
        choice: int = 0,
        count: int = 0,
        payload: bytes = b"",
        key: int = KEY,
        attempt: int = ATTEMPT,
    ) -> None:
        assert self.writer.write([(kind, key, attempt, choice, count, payload)]) == 1

    def text(self, text: str, choice: int = 0, key: int = KEY, kind: int = TOKENS) -> None:
        self.put(kind, choice, 2, struct.pack("<2i", 5, -1) + text.encode(), key)

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
