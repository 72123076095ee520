"""Bytes on a socket against a real server: what clients and proxies do that libraries hide."""

from __future__ import annotations

import gzip
import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from http_app import Response, chunked, parse_response, raw
from server import Server

try:
    from compression import zstd  # type: ignore[import-not-found, unused-ignore]
except ImportError:
    from backports import zstd

WAIT_S = 30.0
CHAT = "/v1/chat/completions"
JSON = {"Content_Type": "application/json"}


def body(stream: bool = False, text: str = "hi", **echo: Any) -> bytes:
    message = {"role": "user", "content": text}
    asked = {"model": "echo", "messages": [message], "stream": stream, "smmf_echo": echo}
    return json.dumps(asked, ensure_ascii=False).encode()


class Wire:
    """One connection, and what has come on it."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), WAIT_S)
        self.got = b""

    def send(self, *parts: bytes) -> None:
        for part in parts:
            self.sock.sendall(part)

    def until(self, end: bytes, times: int = 1) -> bytes:
        while self.got.count(end) < times:
            part = self.sock.recv(65536)
            assert part, self.got
            self.got += part
        return self.got

    def rest(self) -> bytes:
        """All until the server closes."""
        while part := self.sock.recv(65536):
            self.got += part
        return self.got

    def responses(self, count: int) -> list[Response]:
        found: list[Response] = []
        while len(found) < count:
            try:
                response, rest = parse_response(self.got)
            except (AssertionError, ValueError):  # not all of it is here
                part = self.sock.recv(65536)
                assert part, self.got
                self.got += part
            else:
                found.append(response)
                self.got = rest
        return found

    @property
    def is_over(self) -> bool:
        return self.sock.recv(1) == b""


@pytest.fixture
def wire(server: Server) -> Iterator[Wire]:
    made = Wire(server.port)
    with closing(made.sock):
        yield made


def test_a_pipeline_with_a_stream_in_it(wire: Wire) -> None:
    wire.send(
        raw("GET", "/v1/models")
        + raw("POST", CHAT, body(stream=True), **JSON)
        + raw("POST", CHAT, body(), **JSON)
        + raw("GET", "/health")
    )
    models, stream, whole, health = wire.responses(4)
    assert models.json["object"] == "list"
    assert stream.body.endswith(b"data: [DONE]\n\n")
    assert whole.json["object"] == "chat.completion"
    assert health.json == {"status": "ok"}


def test_a_connection_is_used_again_after_a_stream(wire: Wire) -> None:
    for _ in range(3):
        wire.send(raw("POST", CHAT, body(stream=True), **JSON))
        (response,) = wire.responses(1)
        assert response.body.endswith(b"data: [DONE]\n\n")
        assert response.headers["connection"] == "keep-alive"
    assert wire.got == b""


def test_a_stream_of_http_1_0_ends_with_the_connection(wire: Wire) -> None:
    wire.send(raw("POST", CHAT, body(stream=True), version="1.0", **JSON))
    head, _, events = wire.rest().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert events.startswith(b"data: {")
    assert events.endswith(b"data: [DONE]\n\n")


def test_http_1_0_may_keep_the_connection(wire: Wire) -> None:
    for _ in range(2):
        wire.send(raw("GET", "/health", version="1.0", Connection="keep-alive"))
        (response,) = wire.responses(1)
        assert response.headers["connection"] == "keep-alive"
    wire.send(raw("GET", "/health", version="1.0"))
    assert wire.responses(1)[0].headers["connection"] == "close"
    assert wire.is_over


def test_a_stream_that_is_the_last(wire: Wire) -> None:
    wire.send(raw("POST", CHAT, body(stream=True), Connection="close", **JSON))
    response, rest = parse_response(wire.rest())
    assert response.headers["connection"] == "close"
    assert response.body.endswith(b"data: [DONE]\n\n")
    assert rest == b""


@pytest.mark.parametrize("coding", ["plain", "gzip", "zstd"])
def test_a_body_in_pieces(wire: Wire, coding: str) -> None:
    """Also within a character: nothing depends on how the bytes come."""
    plain = body(text="Köln 東京 🙂")
    packed = {"plain": plain, "gzip": gzip.compress(plain), "zstd": zstd.compress(plain)}[coding]
    extra = {} if coding == "plain" else {"content_encoding": coding}
    whole = raw("POST", CHAT, packed, **JSON, **extra)
    parts = raw("POST", CHAT, chunked(packed, 7), transfer_encoding="chunked", **JSON, **extra)
    for data in (whole, parts):
        wire.send(*[data[at : at + 11] for at in range(0, len(data), 11)])
        assert wire.responses(1)[0].status == 200


def test_continue_is_said_once(wire: Wire) -> None:
    asked = body(stream=True)
    wire.send(raw("POST", CHAT, Expect="100-continue", Content_Length=str(len(asked)), **JSON))
    assert wire.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    wire.send(asked)
    _, response = wire.responses(2)
    assert response.body.endswith(b"data: [DONE]\n\n")


def test_a_refused_head_needs_no_body(wire: Wire) -> None:
    wire.send(raw("POST", CHAT, Expect="100-continue", Content_Length=str(1 << 40), **JSON))
    assert wire.responses(1)[0].status == 413
    assert wire.is_over


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: five\r\n",
    ],
)
def test_a_body_of_two_lengths(wire: Wire, head: bytes) -> None:
    smuggled = raw("GET", "/v1/models")
    wire.send(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\n" + head + b"\r\n0\r\n\r\n" + smuggled)
    (response,) = wire.responses(1)
    assert (response.status, response.headers["connection"]) == (400, "close")
    assert wire.is_over


def test_a_connection_outlives_refusals_of_the_application(wire: Wire) -> None:
    wire.send(
        raw("POST", CHAT, b"{", **JSON)
        + raw("POST", CHAT + "/", body(), **JSON)
        + raw("PUT", CHAT, body(), **JSON)
        + raw("POST", CHAT, body(), Content_Type="text/html")
        + raw("GET", "/health")
    )
    assert [response.status for response in wire.responses(5)] == [400, 404, 405, 415, 200]


def test_heads_of_16_kib_are_read(wire: Wire) -> None:
    wire.send(raw("GET", "/health", X_Token="x" * (16 << 10)))
    assert wire.responses(1)[0].status == 200


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://other.host/v1/models", 200),
        ("/v1/models?limit=5&x=%00", 200),
        ("/v1/models/echo", 200),
        ("/v1/models/%65cho", 200),
        ("/v1/models/org%2Fname:tag", 404),
        ("/v1/models/org/name:tag", 404),
        ("/v1/models/", 404),
        ("/v1/models/%FF%00", 404),
        ("/v1//models", 404),
        ("/v1/../v1/models", 404),
        ("/%2e%2e/etc/passwd", 404),
    ],
)
def test_targets(wire: Wire, target: str, status: int) -> None:
    wire.send(raw("GET", target))
    (response,) = wire.responses(1)
    assert response.status == status
    assert response.headers["content-type"] == "application/json"


def test_closing_right_after_the_end_is_no_cancellation(server: Server) -> None:
    """As the official Python client does with every stream."""
    cancelled, answered = _counts(server)
    for _ in range(5):
        wire = Wire(server.port)
        with closing(wire.sock):
            wire.send(raw("POST", CHAT, body(stream=True, tokens=5), **JSON))
            wire.until(b"[DONE]\n\n")
    until = time.monotonic() + WAIT_S
    while _counts(server)[1] < answered + 5 and time.monotonic() < until:
        time.sleep(0.02)
    assert _counts(server) == (cancelled, answered + 5)


def test_a_client_that_leaves_is_a_cancellation(server: Server) -> None:
    cancelled, answered = _counts(server)
    wire = Wire(server.port)
    with closing(wire.sock):
        wire.send(raw("POST", CHAT, body(stream=True, tokens=100_000, step_ms=5), **JSON))
        wire.until(b'"content"', 2)
    until = time.monotonic() + WAIT_S
    while _counts(server)[0] == cancelled and time.monotonic() < until:
        time.sleep(0.02)
    assert _counts(server) == (cancelled + 1, answered)


def _counts(server: Server) -> tuple[float, float]:
    """(cancelled, chats answered well)"""
    cancelled = answered = 0.0
    for name, value in server.metrics().items():
        cancelled += value if "cancelled" in name and not name.endswith("_created") else 0
        is_chat = "requests_total" in name and 'route="chat"' in name and '"200"' in name
        answered += value if is_chat else 0
    return cancelled, answered
