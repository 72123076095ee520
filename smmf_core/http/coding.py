"""The content codings of request bodies: what is taken, and taking it off.

Owns their names and bounds; must not touch a connection. No bomb gets further than the bound of
plain bodies, and no window is larger than clients of the web may ask for.
"""

from __future__ import annotations

import sys
import zlib
from typing import Any

from smmf_core.errors import ApiError

ACCEPTED = b"gzip, deflate, zstd"
_GZIP_OR_ZLIB = 47  # zlib's window bits that accept both wrappers
_GZIP = frozenset({b"gzip", b"x-gzip", b"deflate"})
_NONE = frozenset({b"identity", b""})
_ZSTD_WINDOW_LOG = 23  # 8 MiB: the most that this coding may ask for (RFC 9659)


def decode_body(coding: bytes, body: bytes, limit: int) -> bytes | None:
    """The body without its Content-Encoding; None: it would have more than `limit` bytes.

    Raises ApiError: 415 for a coding that is not taken, 400 for a body that is not in it.
    """
    coding = coding.strip().lower()
    if not body or coding in _NONE:
        return body
    if coding in _GZIP:
        return _inflate(zlib.decompressobj(_GZIP_OR_ZLIB), zlib.error, body, limit, "gzip")
    if coding == b"zstd":
        decoder, error = _zstd()
        return _inflate(decoder, error, body, limit, "zstd")
    text = f"The body's Content-Encoding must be one of {ACCEPTED.decode()}."
    raise ApiError("unsupported_media_type", text)


def _inflate(
    decoder: Any, error: type[Exception], body: bytes, limit: int, name: str
) -> bytes | None:
    try:
        plain: bytes = decoder.decompress(body, limit + 1)
    except error:
        raise ApiError("bad_request", f"The body is not valid {name}.") from None
    if len(plain) > limit:
        return None
    if not decoder.eof or decoder.unused_data:
        raise ApiError("bad_request", f"The body's {name} does not end where it should.")
    return plain


def _zstd() -> tuple[Any, type[Exception]]:
    """A decoder and its error; loaded at the first body that needs it."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    window: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
    return zstd.ZstdDecompressor(options=window), zstd.ZstdError
