"""Requests that two servers might read in two ways: refused, or read in the one way left."""

from __future__ import annotations

import pytest
from http_app import Connection, raw

POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
INNER = raw("GET", "/smuggled")

REFUSED = {
    "length, empty": (POST + b"Content-Length:\r\n\r\n", 400),
    "length, two words": (POST + b"Content-Length: 3 3\r\n\r\nabc", 400),
    "length, space behind": (POST + b"Content-Length: 3 \r\n\r\nabc", 400),
    "length, underscore": (POST + b"Content-Length: 1_0\r\n\r\n0123456789", 400),
    "length, point": (POST + b"Content-Length: 3.0\r\n\r\nabc", 400),
    "length, thousands of digits": (POST + b"Content-Length: " + b"0" * 9000 + b"\r\n\r\n", 400),
    "length, other letters": (POST + "Content-Length: \u0663\r\n\r\nabc".encode(), 400),
    "length, the same twice": (POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
    "length 0 and chunks": (
        POST + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "coding, empty": (POST + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n", 400),
    "coding, twice": (POST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n", 400),
    "coding, chunked of chunks": (
        POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "coding, parameter": (POST + b"Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", 501),
    "coding, quoted": (POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n', 501),
    "coding on a new line": (POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
    "coding behind upgrade": (
        POST + b"Connection: upgrade\r\nUpgrade: x\r\nContent-Length: 3\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "chunk, hex prefix": (CHUNKED + b"0x1\r\na\r\n0\r\n\r\n", 400),
    "chunk, negative": (CHUNKED + b"-1\r\na\r\n0\r\n\r\n", 400),
    "chunk, plus": (CHUNKED + b"+1\r\na\r\n0\r\n\r\n", 400),
    "chunk, no size": (CHUNKED + b"\r\na\r\n0\r\n\r\n", 400),
    "chunk, bare cr": (CHUNKED + b"1\ra\r\n0\r\n\r\n", 400),
    "chunk, line in an extension": (CHUNKED + b"1;a\nb\r\na\r\n0\r\n\r\n", 400),
    "chunk, quoted line in an extension": (CHUNKED + b'1;a="\r\n"\r\na\r\n0\r\n\r\n', 400),
    "chunk, lf behind its data": (CHUNKED + b"1\r\na\n0\r\n\r\n", 400),
    "trailer, length": (CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n", 400),
    "trailer, coding": (CHUNKED + b"0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    "head, first line folded": (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    "head, cr cr lf": (b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", 400),
    "head, ends with lf": (b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
    "version, 0.9": (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
    "version, 1.10": (b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400),
    "version, space behind": (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
    "version, lower case": (b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
    "method, lower case": (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "host, two in one": (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    "host, user": (b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
    "host, path": (b"GET / HTTP/1.0\r\nHost: a/b\r\n\r\n", 400),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_and_closed(name: str) -> None:
    data, status = REFUSED[name]
    c = Connection()
    c.send(data + INNER, INNER)
    assert c.app.requests == []
    assert c.statuses() == [status]
    assert c.is_over


READ = {
    "no length: no body": (POST + b"\r\n", b""),
    "a body of GET is a body": (
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(INNER) + INNER,
        INNER,
    ),
    "length, zeros before": (POST + b"Content-Length: 0003\r\n\r\nabc", b"abc"),
    "another header's name": (
        POST + b"Transfer_Encoding: chunked\r\nContent-Length: 1\r\n\r\na",
        b"a",
    ),
    "length made hop-by-hop": (
        POST + b"Connection: content-length\r\nContent-Length: 1\r\n\r\na",
        b"a",
    ),
    "coding in capitals": (POST + b"TRANSFER-ENCODING: CHUNKED\r\n\r\n1\r\na\r\n0\r\n\r\n", b"a"),
    "coding behind a tab": (POST + b"Transfer-Encoding:\tchunked\r\n\r\n1\r\na\r\n0\r\n\r\n", b"a"),
    "chunk, extension": (CHUNKED + b"1;a=b;c\r\na\r\n0;d\r\n\r\n", b"a"),
    "chunk, zeros before": (CHUNKED + b"0001\r\na\r\n00\r\n\r\n", b"a"),
    "chunk, a request within": (CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(INNER), INNER), INNER),
    "ipv6 host": (b"POST / HTTP/1.1\r\nHost: [::1]:80\r\nContent-Length: 1\r\n\r\na", b"a"),
}


@pytest.mark.parametrize("name", READ)
def test_read_in_one_way(name: str) -> None:
    """The body is what it says, and the next request is the one behind it."""
    data, body = READ[name]
    c = Connection()
    c.send(data + raw("GET", "/next"))
    assert [(r.path, r.body) for r in c.app.requests] == [("/", body), ("/next", b"")]
    assert c.statuses() == [200, 200]
    assert not c.is_over
