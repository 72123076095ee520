"""What is wrong with a request beyond its syntax, and the decoding of its body.

Owns the rules of RFC 9110 and 9112 that llhttp leaves to the server; must not touch a connection.
"""

from __future__ import annotations

from smmf_core.errors import ApiError
from smmf_core.http import coding
from smmf_core.http.limits import Limits
from smmf_core.http.request import Request

_ONCE = frozenset({b"host", b"content-length", b"transfer-encoding"})
_NO_BODY = (b"", b"0")
_NOT_IN_HOST = b" \t@/?#\\"  # a list, user information, or more of a URL than host and port
_LENGTH_DIGITS = 19  # of 2^63; int() itself refuses thousands
_UPGRADE_HEADERS = frozenset({b"upgrade", b"connection", b"http2-settings"})


def check_head(request: Request, limits: Limits) -> None:
    """Raise ApiError unless the request may go on to its body.

    1 version; 2 methods that are for proxies (CONNECT) or leak headers (TRACE); 3 Host; 4 framing,
    where everything that two servers could read in two ways is refused (RFC 9112, section 6).
    """
    headers = request.headers
    if request.version not in ("1.1", "1.0"):
        raise ApiError("http_version_not_supported", "This server speaks HTTP/1.1.")
    if request.method in ("CONNECT", "TRACE"):
        raise ApiError("not_implemented", f"This server does not do {request.method}.")
    host = headers.get(b"host")
    if host is None and request.version == "1.1":
        raise ApiError("bad_request", "The Host header is missing.")
    if host is not None and host.translate(None, _NOT_IN_HOST) != host:
        raise ApiError("bad_request", "The Host header is not valid.")
    framing = headers.get(b"transfer-encoding")
    if framing is not None:
        if b"content-length" in headers or request.version == "1.0":
            raise ApiError("bad_request", "Transfer-Encoding needs HTTP/1.1 and no Content-Length.")
        if framing.strip().lower() != b"chunked":
            raise ApiError("not_implemented", "The only transfer coding is chunked.")
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or len(length) > _LENGTH_DIGITS:
        raise ApiError("bad_request", "Content-Length is not a number.")
    if int(length) > limits.body_bytes:
        raise too_large(limits)


def may_repeat(name: bytes) -> bool:
    return name not in _ONCE


def wants_continue(request: Request) -> bool:
    """Whether the client waits for `100 Continue`. Raises ApiError 417 for other expectations."""
    headers = request.headers
    expected = headers.get(b"expect")
    if expected is None or request.version == "1.0":
        return False
    if expected.lower() != b"100-continue":
        raise ApiError("expectation_failed", "The only expectation is 100-continue.")
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"") not in _NO_BODY


def head_without_upgrade(request: Request) -> bytes:
    """The request's head as it would be without its wish for another protocol."""
    method, version = request.method.encode("latin-1"), request.version.encode("latin-1")
    lines = [b"%b %b HTTP/%b\r\n" % (method, request.target, version)]
    for name, value in request.headers.items():
        if name not in _UPGRADE_HEADERS:
            lines.append(b"%b: %b\r\n" % (name, value))
    if not request.keep_alive:
        lines.append(b"connection: close\r\n")
    return b"".join(lines) + b"\r\n"


def decode_body(request: Request, limits: Limits) -> bytes:
    """The body without its Content-Encoding, at most `limits.body_bytes` (no bomb gets further)."""
    body = coding.decode_body(request.headers[b"content-encoding"], request.body, limits.body_bytes)
    if body is None:
        raise too_large(limits)
    return body


def head_too_large(target: bytes, limits: Limits) -> ApiError:
    if 2 * len(target) > limits.header_bytes:
        return ApiError("uri_too_long", "The request's path is too long.")
    return ApiError("headers_too_large", "The request's headers are too many or too large.")


def too_large(limits: Limits) -> ApiError:
    text = f"The request's body may have {limits.body_bytes} bytes at most."
    return ApiError("request_too_large", text)
