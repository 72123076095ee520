"""One HTTP connection without sockets: a transport that remembers, and a small application."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, cast

from smmf_core.http.protocol import HttpProtocol, Limits, Request, ServerState

JSON = b"content-type: application/json\r\n"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class MemoryTransport:
    """The part of asyncio's and uvloop's transports that the protocol uses."""

    def __init__(self) -> None:
        self.sent = b""
        self.writes = 0
        self.closing = False
        self.aborted = False
        self.eof_sent = False
        self.reading = True

    def set_write_buffer_limits(self, high: int) -> None:
        assert high == 0

    def get_extra_info(self, name: str) -> None:
        return None

    def write(self, data: bytes) -> None:
        assert not self.closing
        assert not self.eof_sent
        self.sent += data
        self.writes += 1

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof_sent = True

    def is_closing(self) -> bool:
        return self.closing

    def is_reading(self) -> bool:
        return self.reading

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True


class App:
    """Answers at once with what it was asked, unless `waits`; /boom is a bug."""

    def __init__(self) -> None:
        self.waits = False
        self.requests: list[Request] = []
        self.gone: list[Request] = []
        self.writable: list[Request] = []

    def on_request(self, request: Request) -> None:
        self.requests.append(request)
        if request.path == "/boom":
            raise ValueError("a bug")
        if not self.waits:
            answer(request)

    def lines(self, request: Request) -> bytes:
        return b""

    def on_disconnect(self, request: Request) -> None:
        self.gone.append(request)

    def on_writable(self, request: Request) -> None:
        self.writable.append(request)


def answer(request: Request) -> None:
    seen = {"method": request.method, "path": request.path, "body": request.body.decode("latin-1")}
    request.respond(200, JSON, json.dumps(seen).encode())


def stream(request: Request, *parts: bytes) -> None:
    """A streamed response, framed as the native side does."""
    request.begin_stream()
    request.write_raw(request.head(200, b"content-type: text/event-stream\r\n"))
    for part in parts:
        request.write_raw(b"%x\r\n%b\r\n" % (len(part), part) if request.chunked else part)
    if request.chunked:
        request.write_raw(b"0\r\n\r\n")
    request.end_stream(False)


@dataclass
class Response:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """A protocol on a MemoryTransport with a clock that only tests move."""

    def __init__(self, limits: Limits | None = None, server: ServerState | None = None) -> None:
        self.app = App()
        self.clock = Clock()
        self.server = server or ServerState(self.clock)
        self.transport = MemoryTransport()
        self.protocol = HttpProtocol(self.app, limits or Limits(), self.server)
        self.protocol.connection_made(cast(Any, self.transport))

    def send(self, *parts: bytes) -> None:
        for part in parts:
            self.protocol.data_received(part)

    def after(self, seconds: float) -> None:
        self.clock.now += seconds
        self.server.sweep(self.clock.now)

    def lose(self) -> None:
        self.transport.closing = True
        self.protocol.connection_lost(None)

    def responses(self, *bare: int) -> list[Response]:
        """All that was sent, parsed; `bare`: indexes of requests of HEAD."""
        found, rest, answered = [], self.transport.sent, 0
        while rest:
            is_refused_head = self.is_over and rest.find(b"\r\n\r\n") == len(rest) - 4
            response, rest = parse_response(rest, answered in bare or is_refused_head)
            found.append(response)
            answered += response.status != 100
        return found

    def statuses(self) -> list[int]:
        return [response.status for response in self.responses()]

    @property
    def is_over(self) -> bool:
        """The client is told that no response follows."""
        return self.transport.closing or self.transport.eof_sent


def parse_response(data: bytes, is_bare: bool = False) -> tuple[Response, bytes]:
    """The first response of `data`, and what follows it. Raises where it is not well-formed."""
    head, blank, rest = data.partition(b"\r\n\r\n")
    assert blank, data
    first, *lines = head.decode("ascii").split("\r\n")
    version, status, _ = first.split(" ", 2)
    assert version == "HTTP/1.1"
    response = Response(int(status))
    for line in lines:
        name, _, value = line.partition(": ")
        assert name not in response.headers, name
        response.headers[name] = value
    if is_bare or response.status in (100, 204):
        return response, rest
    if response.headers.get("transfer-encoding") == "chunked":
        response.body, rest = _chunks(rest)
    elif "content-length" in response.headers:
        length = int(response.headers["content-length"])
        assert len(rest) >= length
        response.body, rest = rest[:length], rest[length:]
    else:
        assert response.headers["connection"] == "close"
        response.body, rest = rest, b""
    return response, rest


def _chunks(data: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        assert data[length : length + 2] == b"\r\n"
        body += data[:length]
        data = data[length + 2 :]
        if not length:
            return body, data


def raw(
    method: str = "GET", path: str = "/", body: bytes = b"", version: str = "1.1", **headers: str
) -> bytes:
    """A request's bytes; `content_type="x"` becomes `content-type: x`."""
    lines = [f"{method} {path} HTTP/{version}", "Host: test"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body and "transfer_encoding" not in headers and "content_length" not in headers:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(body: bytes, size: int = 5) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
