"""However bytes arrive, split, merged or broken, the same things happen and nothing raises."""

from __future__ import annotations

import gzip
from typing import Any

import pytest
from http_app import Connection, answer, chunked, raw
from hypothesis import given, settings
from hypothesis import strategies as st

from smmf_core.http.protocol import Limits, Request

LIMITS = Limits(header_bytes=400, headers=8, body_bytes=64, pipeline_depth=2)
ROOMY = Limits(header_bytes=4000, headers=100, body_bytes=64)  # the size of whitespace is not seen
UPGRADE = {"Connection": "Upgrade", "Upgrade": "h2c"}
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"

CORPUS = {
    "get": raw("GET", "/v1/models?a=b", Accept="*/*"),
    "head": raw("HEAD", "/health"),
    "post": raw("POST", "/x", b'{"a":"\xc3\xa9"}', Content_Type="application/json"),
    "chunked": raw("POST", "/x", chunked(b"hello world"), transfer_encoding="chunked"),
    "trailers": POST + b"Transfer-Encoding: chunked\r\n\r\n1;e=f\r\na\r\n0\r\nX: y\r\n\r\n",
    "gzip": raw("POST", "/x", gzip.compress(b"hello", mtime=0), content_encoding="gzip"),
    "leading lines": b"\r\n\r\n" + raw("GET", "/"),
    "close": raw("GET", "/1", Connection="close") + raw("GET", "/2"),
    "http/1.0": raw("GET", "/", version="1.0"),
    "expect": raw("POST", "/", b"ab", Expect="100-continue"),
    "upgrade": raw("POST", "/1", b"ab", **UPGRADE) + raw("GET", "/2", **UPGRADE),
    "upgrade, chunked": raw("POST", "/", chunked(b"ab"), transfer_encoding="chunked", **UPGRADE),
    "pipeline": b"".join(raw("POST", f"/{n}", b"%d" % n) for n in range(4)),
    "then bad": raw("POST", "/1", b"ab") + b"bad\r\n\r\n",
    "both lengths": POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bad chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
    "obs-fold": b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "large body": raw("POST", "/", b"a" * 65),
    "large head": raw("GET", "/", X="a" * 400),
    "large path": raw("GET", "/" + "a" * 400),
    "many headers": raw("GET", "/", **{f"X{n}": "" for n in range(9)}),
    "bad coding": raw("POST", "/", b"a", content_encoding="br"),
    "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "half": raw("GET", "/")[:-3],
}

Events = tuple[list[Any], list[Any], bool]


def feed(parts: list[bytes], limits: Limits = LIMITS) -> Events:
    """What the application saw, what the client got, and whether the connection is over."""
    c = Connection(limits)
    c.send(*parts)
    seen = [(r.method, r.path, r.version, r.headers, r.body) for r in c.app.requests]
    bare = [n for n, request in enumerate(c.app.requests) if request.method == "HEAD"]
    got = [(r.status, r.body) for r in c.responses(*bare) if r.status != 100]
    return seen, got, c.is_over


@pytest.mark.parametrize("name", CORPUS)
def test_every_split_gives_the_same_events(name: str) -> None:
    data = CORPUS[name]
    whole = feed([data])
    assert feed([data[n : n + 1] for n in range(len(data))]) == whole
    for at in range(1, len(data)):
        assert feed([data[:at], data[at:]]) == whole


@pytest.mark.parametrize("name", ["get", "chunked", "gzip", "upgrade", "pipeline", "trailers"])
def test_merged_requests_give_the_same_events(name: str) -> None:
    data = CORPUS[name]
    seen, got, is_over = feed([data])
    assert feed([data * 3]) == (seen * 3, got * 3, is_over)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(sorted(CORPUS)), max_size=4), st.data())
def test_any_cuts_of_any_sequence(names: list[str], data: st.DataObject) -> None:
    """Also while responses are late: order and number do not depend on the reads."""
    stream = b"".join(CORPUS[name] for name in names)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    c = Connection(LIMITS)
    c.app.waits = True
    answered: list[Request] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        c.send(stream[start:end])
        if data.draw(st.booleans()):
            _answer_next(c, answered)
    while _answer_next(c, answered):
        pass
    whole = feed([stream])
    seen = [(r.method, r.path, r.version, r.headers, r.body) for r in c.app.requests]
    assert (seen, c.is_over) == (whole[0], whole[2])


def _answer_next(c: Connection, answered: list[Request]) -> bool:
    if len(answered) == len(c.app.requests):
        return False
    answered.append(c.app.requests[len(answered)])
    answer(answered[-1])
    return True


TOKENS = [
    b"GET ", b"POST ", b"/", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"\r\n", b"\r", b"\n", b"\0",
    b": ", b"Host: a\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"\xff",
    b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n",
    b"Connection: upgrade\r\nUpgrade: h2c\r\n", b"Content-Encoding: gzip\r\n", b"hello",
    b"Expect: 100-continue\r\n",
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(TOKENS), st.binary(max_size=20)), max_size=40))
def test_random_bytes_never_raise(parts: list[bytes]) -> None:
    """Only well-formed responses come out (or nothing yet); after a refusal nothing is read."""
    whole = feed([b"".join(parts)], ROOMY)
    assert feed(parts, ROOMY) == whole
    _, got, is_over = whole
    for index, (status, _) in enumerate(got):
        assert status == 200 or (400 <= status <= 505 and index == len(got) - 1 and is_over)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(CORPUS)), st.data())
def test_a_broken_byte_never_raises(name: str, data: st.DataObject) -> None:
    raw_bytes = bytearray(CORPUS[name])
    for _ in range(data.draw(st.integers(1, 3))):
        raw_bytes[data.draw(st.integers(0, len(raw_bytes) - 1))] = data.draw(st.integers(0, 255))
    whole = bytes(raw_bytes)
    at = data.draw(st.integers(0, len(whole)))
    assert feed([whole[:at], whole[at:]], ROOMY) == feed([whole], ROOMY)
