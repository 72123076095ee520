"""HTTP/1.1 (RFC 9112) on one connection: bytes in, complete requests to the application, in order.

llhttp parses; this file owns the connection's state: limits, time-outs, pipelining, drain. Streams'
bytes are sent natively on the socket; that is sound because the transport's own buffer is kept empty
(`set_write_buffer_limits(0)`: uvloop writes at once and pauses while anything is left). Must not know
routes.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections import deque
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from smmf_core.errors import ApiError
from smmf_core.http.limits import Limits
from smmf_core.http.request import Request

__all__ = ["Application", "HttpProtocol", "Limits", "Request", "ServerState"]

_log = logging.getLogger("smmf.http")
_NEVER = float("inf")
_GZIP_OR_ZLIB = 47  # zlib's window bits that accept both wrappers
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LINGER_S = 2.0  # a refused client may still be sending: closing at once would reset its answer
_SWEEP_S = 1.0  # coarse time-outs need no timer of their own


class Application(Protocol):
    def on_request(self, request: Request) -> None: ...
    def on_disconnect(self, request: Request) -> None:
        """The client went away before its response had ended."""

    def on_writable(self, request: Request) -> None:
        """The transport's buffer is empty again."""


class ServerState:
    """What all connections of a listening socket share."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.connections: set[HttpProtocol] = set()
        self.is_draining = False
        self.bad_requests = 0
        self._sweep_at = 0.0

    def sweep(self, now: float) -> None:
        """End what is overdue; call it often, it works once a second."""
        if now >= self._sweep_at:
            self._sweep_at = now + _SWEEP_S
            for connection in [c for c in self.connections if c.deadline <= now]:
                connection.on_timeout()

    def begin_drain(self) -> None:
        """Idle connections close now, busy ones after their response."""
        self.is_draining = True
        for connection in list(self.connections):
            connection.on_drain()


class HttpProtocol(asyncio.Protocol):
    """One connection. At most one request is with the application; later ones wait in order."""

    __slots__ = (
        "_active",
        "_app",
        "_body",
        "_body_bytes",
        "_coming",
        "_header_bytes",
        "_in_headers",
        "_is_closing",
        "_limits",
        "_parser",
        "_queue",
        "_server",
        "_transport",
        "deadline",
        "fileno",
        "is_paused",
    )

    def __init__(self, app: Application, limits: Limits, server: ServerState) -> None:
        self._app = app
        self._limits = limits
        self._server = server
        self._parser: httptools.HttpRequestParser | None = None
        self._transport: asyncio.Transport | None = None
        self._coming: Request | None = None  # being parsed
        self._in_headers = False
        self._header_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._queue: deque[Request] | None = None
        self._active: Request | None = None
        self._is_closing = False
        self.deadline = _NEVER
        self.fileno = -1
        self.is_paused = False

    @property
    def is_draining(self) -> bool:
        return self._server.is_draining

    # --- transport ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=0)
        sock = transport.get_extra_info("socket")
        if sock is not None and transport.get_extra_info("sslcontext") is None:
            self.fileno = sock.fileno()
        self._parser = httptools.HttpRequestParser(self)
        self._server.connections.add(self)
        self.deadline = self._server.clock() + self._limits.idle_timeout_s

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        self._is_closing = True
        self.fileno = -1
        active, self._active = self._active, None
        self._queue = self._coming = self._transport = self._parser = None
        if active is not None:
            self._guard(self._app.on_disconnect, active)

    def eof_received(self) -> bool:
        """A client that has closed its side is gone: no answer is generated for nobody."""
        return False

    def pause_writing(self) -> None:
        self.is_paused = True

    def resume_writing(self) -> None:
        self.is_paused = False
        if self._active is not None:
            self._guard(self._app.on_writable, self._active)

    def data_received(self, data: bytes) -> None:
        if self._is_closing or self._parser is None:
            return
        if self._coming is None and self._active is None:
            self.deadline = self._server.clock() + self._limits.header_timeout_s
        if self._in_headers or self._coming is None:
            self._header_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse("not_implemented", "This server does not change protocols.")
        except httptools.HttpParserCallbackError as error:
            self._refuse_cause(error)
        except httptools.HttpParserError as error:
            self._refuse("bad_request", f"The request is not valid HTTP: {error}"[:200])
        if self._in_headers and self._header_bytes > self._limits.header_bytes:
            self._refuse("headers_too_large", "The request's headers are too large.")

    # --- llhttp's callbacks ---

    def on_message_begin(self) -> None:
        if self._is_closing:
            raise _Ignored
        self._coming = Request(self)
        self._in_headers = True
        self._body = []
        self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        assert self._coming is not None
        self._coming.target += url
        if len(self._coming.target) > self._limits.header_bytes:
            raise ApiError("uri_too_long", "The request's path is too long.")

    def on_header(self, name: bytes, value: bytes) -> None:
        assert self._coming is not None
        headers = self._coming.headers
        name = name.lower()
        if b"\n" in value or b"\r" in value or b"\0" in value:
            raise ApiError("bad_request", "A header value holds a line break.")
        if name in headers:
            if name in (b"host", b"content-length", b"transfer-encoding"):
                raise ApiError("bad_request", f"Repeated header: {name.decode('latin-1')}.")
            value = headers[name] + b", " + value
        elif len(headers) >= self._limits.headers:
            raise ApiError("headers_too_large", "The request has too many headers.")
        headers[name] = value

    def on_headers_complete(self) -> None:
        request, parser = self._coming, self._parser
        assert request is not None and parser is not None
        self._in_headers = False
        self._header_bytes = 0
        request.method = parser.get_method().decode("latin-1")
        request.version = parser.get_http_version()
        request.keep_alive = parser.should_keep_alive()
        self._check_head(request)
        self.deadline = self._server.clock() + self._limits.body_timeout_s
        if b"expect" in request.headers:
            self._expect(request)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.body_bytes:
            raise self._too_large()
        self._body.append(body)
        self.deadline = self._server.clock() + self._limits.body_timeout_s

    def on_message_complete(self) -> None:
        request, self._coming = self._coming, None
        assert request is not None
        self.deadline = _NEVER
        request.body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body = []
        if b"content-encoding" in request.headers:
            request.body = self._decode_body(request)
        self._take(request)

    # --- requests in order ---

    def on_response_end(self, request: Request) -> None:
        """The application has handed over the last byte of its answer."""
        if self._active is not request:
            return
        self._active = None
        if request.refusal is not None:
            self._linger()
        elif not request.keep_alive or self._server.is_draining:
            self._close()
        elif self._queue:
            self._start(self._queue.popleft())
            self._read_on()
        elif self._coming is None:
            self.deadline = self._server.clock() + self._limits.idle_timeout_s

    def _take(self, request: Request) -> None:
        if self._active is None and not self._queue:
            self._start(request)
            return
        if self._queue is None:
            self._queue = deque()
        self._queue.append(request)
        if len(self._queue) >= self._limits.pipeline_depth and self._transport is not None:
            self._transport.pause_reading()

    def _read_on(self) -> None:
        transport = self._transport
        if transport is not None and not transport.is_closing() and not transport.is_reading():
            transport.resume_reading()

    def _start(self, request: Request) -> None:
        self._active = request
        if request.refusal is not None:
            error = ApiError(*request.refusal)
            headers = [(b"content-type", b"application/json"), *error.headers()]
            request.respond(error.status, headers, error.body())
        else:
            self._guard(self._app.on_request, request)

    def _guard(self, call: Callable[[Request], None], request: Request) -> None:
        """A bug in the application ends this request, not the server."""
        try:
            call(request)
        except Exception:
            _log.exception("%s %s failed", request.method, request.path[:200])
            if self._active is not request:
                return
            if request.is_streaming:
                self.abort()
                return
            request.keep_alive = False
            error = ApiError("internal_error", "The server failed on this request.")
            request.respond(500, [(b"content-type", b"application/json")], error.body())

    # --- checks ---

    def _check_head(self, request: Request) -> None:
        headers = request.headers
        if request.version not in ("1.1", "1.0"):
            raise ApiError("http_version_not_supported", "This server speaks HTTP/1.1.")
        if request.version == "1.1" and b"host" not in headers:
            raise ApiError("bad_request", "The Host header is missing.")
        coding = headers.get(b"transfer-encoding")
        if coding is not None:
            if b"content-length" in headers or request.version == "1.0":
                raise ApiError("bad_request", "Content-Length and Transfer-Encoding exclude each other.")
            if coding.strip().lower() != b"chunked":
                raise ApiError("not_implemented", "The only transfer coding is chunked.")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit():
            raise ApiError("bad_request", "Content-Length is not a number.")
        if int(length[:20]) > self._limits.body_bytes:
            raise self._too_large()

    def _expect(self, request: Request) -> None:
        if request.headers[b"expect"].lower() != b"100-continue":
            raise ApiError("expectation_failed", "The only expectation is 100-continue.")
        if self._active is None and request.version == "1.1":
            self.send(_CONTINUE)

    def _decode_body(self, request: Request) -> bytes:
        coding = request.headers[b"content-encoding"].strip().lower()
        if coding in (b"identity", b""):
            return request.body
        if coding not in (b"gzip", b"deflate", b"x-gzip"):
            text = "Content-Encoding must be gzip, deflate or identity."
            raise ApiError("unsupported_media_type", text)
        inflate = zlib.decompressobj(_GZIP_OR_ZLIB)
        try:
            body = inflate.decompress(request.body, self._limits.body_bytes + 1)
        except zlib.error:
            raise ApiError("bad_request", "The body is not valid gzip or deflate.") from None
        if len(body) > self._limits.body_bytes:
            raise self._too_large()
        if not inflate.eof:
            raise ApiError("bad_request", "The compressed body ends early.")
        return body

    def _too_large(self) -> ApiError:
        limit = self._limits.body_bytes
        return ApiError("request_too_large", f"The request's body may have {limit} bytes at most.")

    def _refuse_cause(self, error: httptools.HttpParserCallbackError) -> None:
        cause = error.__context__
        if isinstance(cause, ApiError):
            self._refuse(cause.code, cause.message)
        elif not isinstance(cause, _Ignored):
            _log.error("parser callback failed", exc_info=cause)
            self._refuse("internal_error", "The server failed on this request.")

    def _refuse(self, code: str, message: str) -> None:
        """Answer a broken request, after those before it, and close: the rest is not to be trusted."""
        if self._is_closing:
            return
        self._server.bad_requests += 1
        self._is_closing = True
        request = self._coming or Request(self)
        self._coming = None
        self._in_headers = False
        request.keep_alive = False
        request.refusal = (code, message)
        self._take(request)

    # --- time and ends ---

    def on_timeout(self) -> None:
        """1 a request half read: 408; 2 an idle connection: close without a word."""
        self.deadline = _NEVER
        if not self._is_closing and (self._coming is not None or self._header_bytes):
            self._refuse("request_timeout", "The request did not arrive in time.")
        else:
            self._close()

    def on_drain(self) -> None:
        if self._active is None and self._coming is None:
            self._close()

    def send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def abort(self) -> None:
        self._is_closing = True
        if self._transport is not None:
            self._transport.abort()

    def _linger(self) -> None:
        """Half-close, and let the client read its answer (RFC 9112, section 9.6)."""
        if self._transport is not None and self._transport.can_write_eof():
            self._transport.write_eof()
            self.deadline = self._server.clock() + _LINGER_S
        else:
            self._close()

    def _close(self) -> None:
        self._is_closing = True
        if self._transport is not None:
            self._transport.close()


class _Ignored(Exception):
    """Bytes after the request that closes the connection."""
