"""HTTP requests one by one: what is read, refused and bounded; Expect, Upgrade; no sockets."""

from __future__ import annotations

import gzip
import zlib

import pytest
from http_app import Connection, answer, chunked, raw

from smmf_core.http.protocol import Limits

SMALL = Limits(header_bytes=500, headers=5, body_bytes=100, pipeline_depth=3)
POST = b"POST / HTTP/1.1\r\nHost: test\r\n"


# --- whole requests ---


def test_a_request_and_its_response() -> None:
    c = Connection()
    c.send(raw("POST", "/v1/x?a=1", b'{"a":1}', Content_Type="application/json"))
    (response,) = c.responses()
    assert response.status == 200
    assert response.json == {"method": "POST", "path": "/v1/x", "body": '{"a":1}'}
    assert response.headers["content-type"] == "application/json"
    assert c.transport.writes == 1
    assert not c.is_over
    assert c.app.requests[0].headers[b"content-type"] == b"application/json"


def test_repeated_headers_are_joined() -> None:
    c = Connection()
    c.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nx-a: 2\r\nX-Empty:\r\n\r\n")
    assert c.app.requests[0].headers == {b"host": b"a", b"x-a": b"1, 2", b"x-empty": b""}


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/a%20b%2Fc?d=%20", "/a b/c"),
        ("http://host:1/v1/models?x", "/v1/models"),
        ("http://host", "/"),
        ("/a?b=http://c/d", "/a"),
        ("//v1", "//v1"),
        ("*", "*"),
    ],
)
def test_paths(target: str, path: str) -> None:
    c = Connection()
    c.send(raw("OPTIONS", target))
    assert c.app.requests[0].path == path


def test_head_has_the_length_and_no_body() -> None:
    c = Connection()
    c.send(raw("HEAD") + raw("GET"))
    head, get = c.responses(0)
    assert head.body == b""
    assert int(head.headers["content-length"]) == len(get.body) + 1  # "HEAD" is one letter longer


def test_no_content() -> None:
    c = Connection()
    c.app.waits = True
    c.send(raw("OPTIONS"))
    c.app.requests[0].respond(204, b"", b"")
    (response,) = c.responses()
    assert "content-length" not in response.headers


@pytest.mark.parametrize("coding", ["identity", "gzip", "x-gzip", "deflate", "GZIP"])
def test_compressed_bodies(coding: str) -> None:
    plain = b'{"text":"' + b"abc" * 30 + b'"}'
    packed = {"identity": plain, "deflate": zlib.compress(plain)}.get(coding, gzip.compress(plain))
    c = Connection()
    c.send(raw("POST", "/", packed, Content_Encoding=coding))
    assert c.app.requests[0].body == plain


def test_a_body_in_many_small_chunks() -> None:
    c = Connection()
    body = bytes(range(256)) * 4
    c.send(raw("POST", transfer_encoding="chunked"), *[chunked(body, 1)])
    assert c.app.requests[0].body == body


def test_trailers_change_nothing() -> None:
    c = Connection()
    c.send(raw("POST", "/", transfer_encoding="chunked"))
    c.send(b"1\r\na\r\n0\r\nAuthorization: Bearer x\r\nHost: other\r\n\r\n")
    assert c.app.requests[0].headers == {b"host": b"test", b"transfer-encoding": b"chunked"}


# --- refusals ---

REFUSALS = [
    ("no host", b"GET / HTTP/1.1\r\n\r\n", 400),
    ("two hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ("garbage", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ("unknown method", b"FOO / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("http/0.9", b"GET /\r\n\r\n", 505),
    ("http/2", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    ("http/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ("http/1.2", b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 400),
    ("cl and te", POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("te and cl", POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400),
    ("cl twice", POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
    ("cl list", POST + b"Content-Length: 3, 3\r\n\r\nabc", 400),
    ("cl sign", POST + b"Content-Length: +3\r\n\r\nabc", 400),
    ("cl negative", POST + b"Content-Length: -1\r\n\r\n", 400),
    ("cl hex", POST + b"Content-Length: 0x3\r\n\r\nabc", 400),
    ("cl huge", POST + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n", 400),
    ("cl large", POST + b"Content-Length: 33554433\r\n\r\n", 413),
    ("te unknown", POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    ("te not last", POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400),
    ("te identity", POST + b"Transfer-Encoding: identity\r\n\r\n", 501),
    ("te hidden", POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    ("te twice", POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n", 400),
    ("te in 1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("te with vt", POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    ("chunk size", POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ("chunk overrun", POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", 400),
    ("chunk bare lf", POST + b"Transfer-Encoding: chunked\r\n\r\n1\na\n0\n\n", 400),
    ("chunk huge", POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", 400),
    ("obs-fold", b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400),
    ("bare lf", b"GET / HTTP/1.1\nHost: a\n\n", 400),
    ("bare lf in header", b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
    ("bare cr", b"GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n", 400),
    ("nul", b"GET / HTTP/1.1\r\nHost: a\r\nX: b\x00c\r\n\r\n", 400),
    ("space before colon", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    ("space in name", b"GET / HTTP/1.1\r\nHost: a\r\nX Y: a\r\n\r\n", 400),
    ("no name", b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400),
    ("control in path", b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("connect", b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    ("trace", b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    ("expectation", POST + b"Expect: x\r\nContent-Length: 1\r\n\r\n", 417),
    ("coding", POST + b"Content-Encoding: br\r\nContent-Length: 1\r\n\r\na", 415),
    ("two codings", POST + b"Content-Encoding: gzip, zstd\r\nContent-Length: 1\r\n\r\na", 415),
    ("bad zstd", POST + b"Content-Encoding: zstd\r\nContent-Length: 1\r\n\r\na", 400),
    ("bad gzip", POST + b"Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\na", 400),
]


@pytest.mark.parametrize(
    ("data", "status"), [r[1:] for r in REFUSALS], ids=[r[0] for r in REFUSALS]
)
def test_refused(data: bytes, status: int) -> None:
    """Refused with the envelope, then closed: a smuggled request is never seen."""
    c = Connection()
    c.send(data, raw("GET", "/smuggled"))
    assert c.app.requests == []
    (response,) = c.responses()
    assert response.status == status
    assert set(response.json["error"]) == {"message", "type", "param", "code"}
    assert response.headers["content-type"] == "application/json"
    assert response.headers["connection"] == "close"
    assert response.headers["x-request-id"].startswith("req_")
    assert c.is_over
    assert c.server.bad_requests == 1
    c.lose()
    assert c.app.gone == []


def test_a_refusal_carries_the_clients_request_id() -> None:
    c = Connection()
    c.send(raw("POST", "/", X_Request_Id="abc-1", Content_Length="99999999999"))
    assert c.responses()[0].headers["x-request-id"] == "abc-1"


@pytest.mark.parametrize("given", ["a b", "x" * 129, 'a"', ""])
def test_a_doubtful_request_id_is_replaced(given: str) -> None:
    c = Connection()
    c.send(raw("POST", "/", X_Request_Id=given, Content_Length="99999999999"))
    assert c.responses()[0].headers["x-request-id"].startswith("req_")


def test_an_unsupported_coding_names_the_supported() -> None:
    c = Connection()
    c.send(raw("POST", "/", b"a", Content_Encoding="br"))
    assert c.responses()[0].headers["accept-encoding"] == "gzip, deflate, zstd"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (raw("GET", "/" + "a" * 600), 414),
        (raw("GET", "/", X="a" * 600), 431),
        (raw("GET", "/", **{f"X{n}": "a" for n in range(5)}), 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 5 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 600, 431),
        (b"GET /" + b"a" * 600, 414),
        (b"\r\n" * 300, 431),
        (raw("POST", "/", b"a" * 101), 413),
        (raw("POST", "/", chunked(b"a" * 101), transfer_encoding="chunked"), 413),
        (raw("POST", "/", gzip.compress(b"a" * 101), content_encoding="gzip"), 413),
        (raw("POST", "/", gzip.compress(b"a" * 99)[:-1], content_encoding="gzip"), 400),
        (raw("POST", "/", gzip.compress(b"a") * 2, content_encoding="gzip"), 400),
        (raw("POST", "/", b"1\r\na\r\n0\r\n" + b"X: a\r\n" * 9, transfer_encoding="chunked"), 431),
    ],
)
@pytest.mark.parametrize("is_split", [False, True])
def test_limits(data: bytes, status: int, is_split: bool) -> None:
    c = Connection(SMALL)
    c.send(*([data[n : n + 1] for n in range(len(data))] if is_split else [data]))
    assert c.app.requests == []
    assert c.statuses() == [status]
    assert c.is_over


def test_a_trailer_without_end_is_cut_off() -> None:
    c = Connection(SMALL)
    c.send(raw("POST", "/", b"1\r\na\r\n0\r\nX: ", transfer_encoding="chunked"))
    c.send(*[b"a" * 100] * 6)
    assert c.statuses() == [431]


def test_a_gzip_bomb_stops_at_the_limit() -> None:
    c = Connection(Limits(body_bytes=1 << 20))
    c.send(raw("POST", "/", gzip.compress(bytes(64 << 20)), content_encoding="gzip"))
    assert c.statuses() == [413]


def test_within_the_limits() -> None:
    c = Connection(SMALL)
    c.send(raw("POST", "/", b"a" * 100), raw("GET", "/", A="1", B="2", C="3", D="4"))
    assert c.statuses() == [200, 200]


def test_what_follows_a_refused_body_is_read_and_ignored() -> None:
    c = Connection(SMALL)
    c.send(raw("POST", "/", b"a" * 101), b"a" * 1000, raw("GET"))
    assert c.statuses() == [413]
    assert c.transport.reading
    assert c.transport.eof_sent
    assert not c.transport.closing
    c.after(3)
    assert c.transport.aborted


# --- Expect ---


def test_continue_is_said_before_the_body() -> None:
    c = Connection()
    c.send(raw("POST", "/", Expect="100-continue", Content_Length="2"))
    assert c.transport.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
    c.send(b"ab")
    assert c.statuses() == [100, 200]


@pytest.mark.parametrize(
    ("data", "statuses"),
    [
        (raw("GET", "/", Expect="100-continue"), [200]),
        (raw("POST", "/", Expect="100-continue", Content_Length="0"), [200]),
        (raw("POST", "/", b"ab", version="1.0", Expect="100-continue"), [200]),
        (raw("POST", "/", Expect="100-continue", Content_Length="101"), [413]),
    ],
)
def test_continue_is_not_said(data: bytes, statuses: list[int]) -> None:
    c = Connection(SMALL)
    c.send(data)
    assert c.statuses() == statuses


def test_continue_waits_for_the_response_before() -> None:
    c = Connection()
    c.app.waits = True
    c.send(raw("GET"), raw("POST", "/", Expect="100-continue", Content_Length="2"))
    c.after(1000)
    assert c.transport.sent == b""
    answer(c.app.requests[0])
    assert c.statuses() == [200, 100]
    c.send(b"ab")
    assert c.app.requests[1].body == b"ab"


# --- Upgrade ---


def test_an_upgrade_is_ignored_and_the_body_is_read() -> None:
    c = Connection()
    upgrade = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2_Settings": "AA"}
    c.send(
        raw("POST", "/a", b"body", **upgrade)
        + raw("GET", "/b", **upgrade)
        + raw("POST", "/c", chunked(b"chunks"), transfer_encoding="chunked", **upgrade)
        + raw("GET", "/d", Connection="close, Upgrade", Upgrade="websocket")
    )
    assert [(r.path, r.body) for r in c.app.requests] == [
        ("/a", b"body"),
        ("/b", b""),
        ("/c", b"chunks"),
        ("/d", b""),
    ]
    assert c.statuses() == [200] * 4
    assert c.transport.closing
