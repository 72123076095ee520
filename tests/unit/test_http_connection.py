"""An HTTP connection over time: order, keep-alive, streams, ends, time-outs, drain, bugs."""

from __future__ import annotations

import logging

import pytest
from http_app import Connection, answer, raw, stream

from smmf_core.http.protocol import Limits

SMALL = Limits(header_bytes=500, headers=5, body_bytes=100, pipeline_depth=3)


# --- order ---


def test_pipelined_requests_are_answered_in_order() -> None:
    c = Connection()
    c.app.waits = True
    c.send(raw("GET", "/1") + raw("POST", "/2", b"b") + raw("GET", "/3"))
    assert [r.path for r in c.app.requests] == ["/1"]
    answer(c.app.requests[0])
    assert [r.path for r in c.app.requests] == ["/1", "/2"]
    stream(c.app.requests[1], b"x", b"y")
    answer(c.app.requests[2])
    first, second, third = c.responses()
    assert (first.json["path"], second.body, third.json["path"]) == ("/1", b"xy", "/3")


def test_a_long_pipeline_stops_reading() -> None:
    c = Connection(SMALL)
    c.app.waits = True
    c.send(raw() * 3)
    assert c.transport.reading
    c.send(raw())
    assert not c.transport.reading
    while c.app.requests:
        answer(c.app.requests.pop())
    assert c.transport.reading
    assert len(c.responses()) == 4


def test_time_stands_still_while_the_server_does_not_read() -> None:
    c = Connection(SMALL)
    c.app.waits = True
    c.send(raw() * 4 + b"GET / HT")
    c.after(1000)
    assert not c.is_over
    while c.app.requests:
        answer(c.app.requests.pop())
    c.after(29)
    assert not c.is_over
    c.after(2)
    assert c.statuses()[4:] == [408]


def test_thousands_of_pipelined_requests_need_no_stack() -> None:
    c = Connection()
    c.app.waits = True
    c.send(raw() * 5000)
    c.app.waits = False
    answer(c.app.requests[0])
    assert len(c.app.requests) == 5000
    assert c.transport.reading


def test_a_client_that_does_not_read_gets_nothing_more() -> None:
    """Responses must not pile up, and a native stream must not overtake the transport's bytes."""
    c = Connection()
    c.app.waits = True
    c.send(raw())
    c.protocol.pause_writing()
    answer(c.app.requests[0])
    c.send(raw() * 20)
    assert len(c.app.requests) == 1
    assert not c.transport.reading
    c.protocol.resume_writing()
    assert len(c.app.requests) == 2
    assert c.app.writable == []


@pytest.mark.parametrize("behind", [b"", raw(), b"bad\r\n\r\n"])
def test_a_client_that_never_reads_is_cut_off(behind: bytes) -> None:
    c = Connection()
    c.app.waits = True
    c.send(raw())
    c.protocol.pause_writing()
    answer(c.app.requests[0])
    c.send(behind)
    c.after(131)
    c.after(131)
    assert c.transport.aborted


def test_a_refusal_waits_for_the_responses_before_it() -> None:
    c = Connection()
    c.app.waits = True
    c.send(raw("GET", "/1"), b"bad\r\n\r\n", raw("GET", "/2"))
    c.after(1000)
    assert c.transport.sent == b""
    answer(c.app.requests[0])
    assert c.statuses() == [200, 400]
    assert c.is_over


def test_an_answer_of_an_ended_request_changes_nothing() -> None:
    c = Connection()
    c.app.waits = True
    c.send(raw("GET", "/1") + raw("GET", "/2"))
    answer(c.app.requests[0])
    answer(c.app.requests[0])
    c.app.requests[0].end_stream(True)
    assert not c.is_over
    assert len(c.responses()) == 1


# --- keep-alive ---


@pytest.mark.parametrize(
    ("version", "connection", "stays", "said"),
    [
        ("1.1", None, True, None),
        ("1.1", "keep-alive", True, None),
        ("1.1", "close", False, "close"),
        ("1.0", None, False, "close"),
        ("1.0", "keep-alive", True, "keep-alive"),
    ],
)
def test_keep_alive(version: str, connection: str | None, stays: bool, said: str | None) -> None:
    c = Connection()
    headers = {} if connection is None else {"Connection": connection}
    c.send(raw(version=version, **headers))
    assert c.responses()[0].headers.get("connection") == said
    assert c.transport.closing is not stays


def test_nothing_after_connection_close() -> None:
    c = Connection()
    c.app.waits = True
    c.send(raw("GET", "/1", Connection="close") + raw("GET", "/2"))
    answer(c.app.requests[0])
    assert len(c.app.requests) == 1
    assert c.statuses() == [200]
    assert c.transport.closing


# --- streams ---


def test_a_stream() -> None:
    c = Connection()
    c.app.waits = True
    c.send(raw("POST", "/", b"{}"))
    stream(c.app.requests[0], b"data: 1\n\n", b"data: 2\n\n")
    (response,) = c.responses()
    assert response.body == b"data: 1\n\ndata: 2\n\n"
    assert response.headers["content-type"] == "text/event-stream"
    assert not c.is_over


def test_a_stream_of_http_1_0_ends_with_the_connection() -> None:
    c = Connection()
    c.app.waits = True
    c.send(raw(version="1.0", Connection="keep-alive"))
    stream(c.app.requests[0], b"ab", b"c")
    (response,) = c.responses()
    assert response.body == b"abc"
    assert c.transport.closing


def test_a_stream_that_failed_closes() -> None:
    c = Connection()
    c.app.waits = True
    c.send(raw() + raw())
    c.app.requests[0].end_stream(True)
    assert c.transport.closing
    assert len(c.app.requests) == 1


def test_back_pressure_reaches_the_application() -> None:
    c = Connection()
    c.app.waits = True
    c.send(raw())
    (request,) = c.app.requests
    c.protocol.pause_writing()
    assert request.is_paused
    c.protocol.resume_writing()
    assert not request.is_paused
    assert c.app.writable == [request]


# --- the client goes away ---


def test_gone_before_and_within_a_request() -> None:
    for data in (b"", b"GET /", raw("POST", "/", b"abc")[:-1]):
        c = Connection()
        c.send(data)
        assert not c.protocol.eof_received()
        c.lose()
        assert c.app.gone == []
        assert c.server.connections == set()


def test_gone_within_a_response() -> None:
    c = Connection()
    c.app.waits = True
    c.send(raw("GET", "/1") + raw("GET", "/2"))
    c.protocol.eof_received()
    c.lose()
    assert [r.path for r in c.app.gone] == ["/1"]
    answer(c.app.requests[0])
    assert c.transport.sent == b""
    assert len(c.app.requests) == 1


def test_gone_after_a_response() -> None:
    c = Connection()
    c.send(raw())
    c.lose()
    assert c.app.gone == []


def test_a_client_that_closed_and_does_not_read_is_cut_off() -> None:
    c = Connection()
    c.app.waits = True
    c.send(raw())
    c.protocol.pause_writing()
    c.protocol.eof_received()
    c.after(3)
    assert c.transport.aborted


# --- time-outs ---


def test_an_idle_connection_closes_without_a_word() -> None:
    c = Connection()
    c.after(129)
    c.send(raw())
    c.after(129)
    assert not c.is_over
    c.after(2)
    assert c.transport.closing
    assert len(c.responses()) == 1


@pytest.mark.parametrize("before", [b"", raw()])
def test_slow_headers(before: bytes) -> None:
    c = Connection()
    c.send(before + b"GET / HTTP/1.1\r\n")
    for _ in range(9):
        c.after(1)
        c.send(b"X: y\r\n")
    assert not c.is_over
    c.after(1.5)
    assert c.statuses()[-1] == 408
    assert c.is_over


def test_slow_headers_behind_a_response() -> None:
    c = Connection()
    c.app.waits = True
    c.send(raw() + b"GET / HTTP/1.1\r\n")
    answer(c.app.requests[0])
    c.after(11)
    assert c.statuses() == [200, 408]


def test_a_slow_body() -> None:
    c = Connection()
    c.send(raw("POST", "/", Content_Length="100"))
    for _ in range(5):
        c.after(29)
        c.send(b"a")
    c.after(31)
    assert c.statuses() == [408]


def test_a_response_may_take_its_time() -> None:
    c = Connection()
    c.app.waits = True
    c.send(raw())
    c.after(10_000)
    assert not c.is_over


def test_a_sweep_comes_once_a_second() -> None:
    c = Connection(Limits(idle_timeout_s=0.5))
    c.server.sweep(c.clock.now)
    c.clock.now += 0.9
    c.server.sweep(c.clock.now)
    assert not c.is_over
    c.after(0.2)
    assert c.is_over


# --- drain ---


def test_drain() -> None:
    idle = Connection()
    busy, coming = Connection(server=idle.server), Connection(server=idle.server)
    busy.app.waits = True
    busy.send(raw("GET", "/1") + raw("GET", "/2"))
    coming.send(b"GET / HT")
    idle.server.begin_drain()
    assert idle.transport.closing
    assert not busy.is_over
    answer(busy.app.requests[0])
    coming.send(b"TP/1.1\r\nHost: a\r\n\r\n")
    for c in (busy, coming):
        assert c.responses()[0].headers["connection"] == "close"
        assert len(c.responses()) == 1
        assert c.transport.closing
    for c in (idle, busy, coming):
        c.lose()
    assert idle.server.connections == set()


# --- bugs of the application ---


def test_a_bug_is_answered_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    c = Connection()
    with caplog.at_level(logging.ERROR, "smmf.http"):
        c.send(raw("GET", "/boom") + raw("GET", "/2"))
    assert "/boom failed" in caplog.text
    (response,) = c.responses()
    assert response.status == 500
    assert response.json["error"]["code"] == "internal_error"
    assert "a bug" not in response.body.decode()
    assert c.transport.closing


def test_a_bug_within_a_stream_cuts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    c = Connection()
    c.app.waits = True
    c.send(raw())
    (request,) = c.app.requests
    request.begin_stream()
    request.write_raw(request.head(200, b""))
    monkeypatch.setattr(c.app, "on_writable", _bug)
    c.protocol.pause_writing()
    c.protocol.resume_writing()
    assert c.transport.aborted
    monkeypatch.setattr(c.app, "on_disconnect", _bug)
    c.lose()


def _bug(request: object) -> None:
    raise RuntimeError("a bug")
