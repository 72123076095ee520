"""Where two rules of the HTTP connection meet: limits with long bodies, time with pipelines."""

from __future__ import annotations

import logging

import pytest
from http_app import Connection, answer, chunked, raw

from smmf_core.http import checks
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


def test_the_last_response_of_a_full_pipeline_may_take_its_time() -> None:
    c = Connection(Limits(pipeline_depth=2))
    c.app.waits = True
    c.send(raw() * 3)
    assert not c.transport.reading
    answer(c.app.requests[0])
    answer(c.app.requests[1])
    assert c.transport.reading
    c.after(10_000)
    assert not c.is_over
    answer(c.app.requests[2])
    assert c.statuses() == [200] * 3


def test_an_aborted_response_is_cut_and_its_end_reported_once() -> None:
    c = Connection()
    c.app.waits = True
    c.send(raw() + raw("GET", "/behind"))
    (request,) = c.app.requests
    request.begin_stream()
    request.write_raw(request.head(200, b""))
    request.abort()
    assert c.transport.aborted
    c.lose()
    assert c.app.gone == [request]
    answer(request)  # too late: nothing happens
    assert c.app.requests == [request]


def test_a_bug_of_the_parsing_side_is_a_500(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def bug(*_: object) -> None:
        raise ValueError("a secret")

    monkeypatch.setattr(checks, "check_head", bug)
    c = Connection()
    with caplog.at_level(logging.ERROR, "smmf.http"):
        c.send(raw(), raw())
    (response,) = c.responses()
    assert response.status == 500
    assert b"secret" not in response.body
    assert "callback failed" in caplog.text
    assert c.is_over
