"""Where two rules of the HTTP connection meet: limits with long bodies, time with pipelines."""

from __future__ import annotations

from http_app import Connection, answer, chunked, raw

from smmf_core.http.protocol import Limits


def test_a_body_may_be_larger_than_the_limit_of_heads() -> None:
    limits = Limits(header_bytes=500, body_bytes=2000)
    body = bytes(range(200)) * 10
    for data in (
        raw("POST", "/", body),
        raw("POST", "/", chunked(body, 50), transfer_encoding="chunked"),
    ):
        c = Connection(limits)
        c.send(*[data[at : at + 100] for at in range(0, len(data), 100)])
        assert [r.body for r in c.app.requests] == [body]


def test_many_small_requests_are_not_one_large_head() -> None:
    c = Connection(Limits(header_bytes=100))
    c.send(*[raw("POST", "/", b"a" * 20)] * 20)
    assert c.statuses() == [200] * 20


def test_http_1_0_needs_no_host() -> None:
    c = Connection()
    c.send(b"GET /a HTTP/1.0\r\n\r\n")
    assert c.statuses() == [200]
    assert c.transport.closing


def test_a_response_in_a_pipeline_may_take_its_time() -> None:
    c = Connection()
    c.app.waits = True
    c.send(raw("GET", "/1") + raw("GET", "/2") + raw("GET", "/3"))
    answer(c.app.requests[0])
    c.after(10_000)
    assert not c.is_over
    answer(c.app.requests[1])
    answer(c.app.requests[2])
    assert c.statuses() == [200] * 3
    c.after(129)
    assert not c.is_over
    c.after(2)
    assert c.transport.closing


def test_an_idle_time_begins_after_the_response() -> None:
    c = Connection()
    c.app.waits = True
    c.send(raw())
    c.after(10_000)
    answer(c.app.requests[0])
    c.after(129)
    assert not c.is_over
    c.after(2)
    assert c.transport.closing
