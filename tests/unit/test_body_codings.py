"""Compressed bodies: what is taken, what is refused, and that no bomb gets through."""

from __future__ import annotations

import gzip
import random
import tracemalloc
import zlib
from typing import Any

import pytest
from http_app import Connection, chunked, raw

from smmf_core.errors import ApiError
from smmf_core.http.coding import decode_body
from smmf_core.http.protocol import Limits

try:
    from compression import zstd  # type: ignore[import-not-found, unused-ignore]
except ImportError:
    from backports import zstd

PLAIN = b'{"text":"' + b"abc" * 300 + b'"}'
LIMIT = 1 << 20
PACKED = {
    "gzip": gzip.compress(PLAIN),
    "deflate": zlib.compress(PLAIN),
    "zstd": zstd.compress(PLAIN),
    "ZStd": zstd.compress(PLAIN, 19),
    "identity": PLAIN,
}


def _streamed(data: bytes, **options: Any) -> bytes:
    """A frame that does not tell how long its content is."""
    coder = zstd.ZstdCompressor(
        options={zstd.CompressionParameter[k]: v for k, v in options.items()}
    )
    parts = [coder.compress(data[at : at + 1000]) for at in range(0, len(data), 1000)]
    return b"".join(parts) + coder.flush()


def _refusal(coding: bytes, body: bytes) -> ApiError:
    with pytest.raises(ApiError) as caught:
        decode_body(coding, body, LIMIT)
    return caught.value


@pytest.mark.parametrize("coding", PACKED)
def test_bodies_are_unpacked(coding: str) -> None:
    c = Connection()
    packed = PACKED[coding]
    c.send(raw("POST", "/", packed, Content_Encoding=coding))
    c.send(
        raw("POST", "/", chunked(packed, 3), content_encoding=coding, transfer_encoding="chunked")
    )
    assert [request.body for request in c.app.requests] == [PLAIN, PLAIN]
    assert c.statuses() == [200, 200]


def test_the_bound_is_of_the_plain_body() -> None:
    for pack in (gzip.compress, zlib.compress, zstd.compress, _streamed):
        coding = b"zstd" if pack in (zstd.compress, _streamed) else b"gzip"
        assert decode_body(coding, pack(bytes(LIMIT)), LIMIT) == bytes(LIMIT)
        assert decode_body(coding, pack(bytes(LIMIT + 1)), LIMIT) is None


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_bomb_is_refused_and_takes_little_memory(coding: str) -> None:
    bomb = gzip.compress(bytes(64 << 20)) if coding == "gzip" else zstd.compress(bytes(256 << 20))
    c = Connection(Limits(body_bytes=LIMIT))
    tracemalloc.start()
    c.send(raw("POST", "/", bomb, Content_Encoding=coding), raw("GET", "/behind"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    (response,) = c.responses()
    assert (response.status, response.headers["connection"]) == (413, "close")
    assert response.json["error"]["code"] == "request_too_large"
    assert c.app.requests == []
    assert peak < 8 * LIMIT


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        (b"zstd", PACKED["zstd"] + b"x"),
        (b"zstd", PACKED["zstd"] * 2),
        (b"zstd", PACKED["zstd"][:-1]),
        (b"zstd", _streamed(PLAIN)[:-3]),
        (b"zstd", PACKED["gzip"]),
        (b"zstd", PLAIN),
        (b"zstd", PACKED["zstd"][:10] + bytes(20)),
        (b"gzip", PACKED["gzip"] + b"x"),
        (b"gzip", PACKED["gzip"][:-1]),
        (b"gzip", PACKED["zstd"]),
    ],
)
def test_what_is_no_such_body_is_a_400(coding: bytes, body: bytes) -> None:
    assert _refusal(coding, body).status == 400


def test_a_window_larger_than_the_webs_is_refused() -> None:
    noise = random.Random(1).randbytes(LIMIT // 2)
    assert decode_body(b"zstd", _streamed(noise, window_log=23), LIMIT) == noise
    assert _refusal(b"zstd", _streamed(noise, window_log=24)).status == 400


@pytest.mark.parametrize("coding", ["br", "gzip, zstd", "zstd, zstd", "compress", "*"])
def test_other_codings_are_a_415_that_names_those_taken(coding: str) -> None:
    c = Connection()
    c.send(raw("POST", "/", b"a", Content_Encoding=coding))
    (response,) = c.responses()
    assert response.status == 415
    assert response.headers["accept-encoding"] == "gzip, deflate, zstd"
    assert "gzip, deflate, zstd" in response.json["error"]["message"]


@pytest.mark.parametrize("seed", range(30))
def test_broken_frames_are_refused_or_read(seed: int) -> None:
    """Whatever is changed: 400, 413 or a body, nothing else."""
    chance = random.Random(seed)
    for coding in ("gzip", "zstd"):
        body = bytearray(PACKED[coding])
        for _ in range(chance.randint(1, 4)):
            body[chance.randrange(len(body))] = chance.randrange(256)
        c = Connection(Limits(body_bytes=LIMIT))
        c.send(raw("POST", "/", bytes(body), Content_Encoding=coding))
        assert c.statuses()[0] in (200, 400, 413)
