"""HTTP/1.1 (RFC 9112) on one connection: bytes in, complete requests to the application, in order.

llhttp parses; this file owns the connection's state: limits, time-outs, pipelining, drain. Streams'
bytes are sent natively on the socket; that is sound because the transport's own buffer is empty
when a request starts, and `is_paused` says when it is not (`set_write_buffer_limits(0)`: uvloop
writes at once and pauses while anything is left). Must not know routes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import cast

import httptools

from smmf_core.errors import ApiError
from smmf_core.http import checks
from smmf_core.http.limits import Limits
from smmf_core.http.request import Request
from smmf_core.http.server import Application, ServerState
from smmf_core.http.transport import prepare

__all__ = ["Application", "HttpProtocol", "Limits", "Request", "ServerState"]

_log = logging.getLogger("smmf.http")
_NEVER = float("inf")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LINE_BYTES = 4  # of a header besides name and value: colon, space, CR, LF
_LINGER_S = 2.0  # a refused client may still be sending: closing at once would reset its answer


class HttpProtocol(asyncio.Protocol):
    """One connection. At most one request is with the application; later ones wait in order."""

    __slots__ = (
        "_active",
        "_app",
        "_body",
        "_coming",
        "_head_bytes",
        "_head_lines",
        "_in_head",
        "_is_advancing",
        "_is_closing",
        "_is_upgrade",
        "_limits",
        "_owes_continue",
        "_parser",
        "_queue",
        "_server",
        "_transport",
        "_unframed_bytes",
        "deadline",
        "fileno",
        "is_paused",
    )

    def __init__(self, app: Application, limits: Limits, server: ServerState) -> None:
        # the connection's
        self._app = app
        self._limits = limits
        self._server = server
        self._parser: httptools.HttpRequestParser | None = None
        self._transport: asyncio.Transport | None = None
        self._is_closing = False  # nothing more is read
        self.deadline = _NEVER  # when on_timeout is due
        self.fileno = -1
        self.is_paused = False  # the transport holds bytes that the socket did not take
        # of the request being parsed
        self._coming: Request | None = None
        self._in_head = False
        self._head_bytes = 0
        self._head_lines = 0
        self._body: bytes | bytearray = b""
        self._unframed_bytes = 0  # received since something was complete: bounds heads, trailers
        self._is_upgrade = False
        self._owes_continue = False
        # of complete requests
        self._active: Request | None = None  # with the application
        self._queue: deque[Request] | None = None  # behind it
        self._is_advancing = False

    @property
    def is_draining(self) -> bool:
        return self._server.is_draining

    # --- transport ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.fileno = prepare(self._transport)
        self._server.connections.add(self)
        self._set_deadline(self._limits.idle_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        self._is_closing = True
        self.deadline = _NEVER
        self.fileno = -1
        active, self._active = self._active, None
        self._queue = self._coming = self._transport = self._parser = None
        if active is not None and active.refusal is None:
            self._guard(self._app.on_disconnect, active)
            active.answer = None

    def eof_received(self) -> bool:
        """A client that closed its side is gone, even with a response under way.

        No HTTP client half-closes and then reads; and the end of input is how a client that went
        away is noticed in time to stop generating for it.
        """
        self._is_closing = True
        self._queue = None
        self._set_deadline(_LINGER_S)  # unsent bytes must not keep the connection
        return False

    def pause_writing(self) -> None:
        self.is_paused = True

    def resume_writing(self) -> None:
        self.is_paused = False
        if self._active is not None and self._active.refusal is None:
            self._guard(self._app.on_writable, self._active)
        else:
            self._advance()

    def data_received(self, data: bytes) -> None:
        if self._is_closing:
            return
        self._unframed_bytes += len(data)
        while data and not self._is_closing:
            data = self._feed(data)
        if self._unframed_bytes > self._limits.header_bytes:
            target = b"" if self._coming is None else self._coming.target
            self._refuse(checks.head_too_large(target, self._limits))

    # --- llhttp's callbacks ---

    def on_message_begin(self) -> None:
        if self._is_closing:
            raise ApiError("bad_request", "Nothing may follow.")  # stops llhttp; nobody hears it
        self._coming = Request(self)
        self._in_head = True
        self._is_upgrade = False
        self._head_bytes = 0
        self._head_lines = 0
        self._body = b""
        self._set_deadline(self._limits.header_timeout_s)

    def on_url(self, url: bytes) -> None:
        assert self._coming is not None
        self._coming.target += url
        if len(self._coming.target) > self._limits.header_bytes:
            raise checks.head_too_large(self._coming.target, self._limits)

    def on_header(self, name: bytes, value: bytes) -> None:
        assert self._coming is not None
        limits = self._limits
        self._head_lines += 1
        self._head_bytes += len(name) + len(value) + _LINE_BYTES
        if self._head_lines > limits.headers or self._head_bytes > limits.header_bytes:
            raise checks.head_too_large(b"", limits)
        if not self._in_head:
            return  # a trailer: nothing here needs one, and it must not change what was checked
        headers = self._coming.headers
        name = name.lower()
        if name in headers:
            if not checks.may_repeat(name):
                raise ApiError("bad_request", f"Repeated header: {name.decode('latin-1')}.")
            value = headers[name] + b", " + value
        headers[name] = value

    def on_headers_complete(self) -> None:
        request, parser = self._coming, self._parser
        assert request is not None
        assert parser is not None
        self._in_head = False
        self._unframed_bytes = 0
        request.method = parser.get_method().decode("latin-1")
        request.version = parser.get_http_version()
        request.keep_alive = parser.should_keep_alive()
        checks.check_head(request, self._limits)
        if parser.should_upgrade():
            self._is_upgrade = True
            return
        self._set_deadline(self._limits.body_timeout_s)
        if checks.wants_continue(request):
            self._owe_continue()

    def on_body(self, body: bytes) -> None:
        if not self._body:
            self._body = body
        else:  # one buffer: a list of one-byte chunks would take forty times the body's size
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += body
        self._unframed_bytes = 0
        if len(self._body) > self._limits.body_bytes:
            raise checks.too_large(self._limits)
        self._set_deadline(self._limits.body_timeout_s)

    def on_message_complete(self) -> None:
        request = self._coming
        assert request is not None
        if self._is_upgrade:
            return
        request.body = bytes(self._body)
        self._body = b""
        if b"content-encoding" in request.headers:
            request.body = checks.decode_body(request, self._limits)
        self._coming = None
        self._unframed_bytes = 0
        self._owes_continue = False
        self._take(request)

    # --- parsing ---

    def _feed(self, data: bytes) -> bytes:
        """Parse; returns what is to be parsed next: the rest, when llhttp wants to stop."""
        if self._parser is None:
            self._parser = httptools.HttpRequestParser(self)  # not before it is needed: 1 KiB
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError as error:
            self._refuse_cause(error)
        except httptools.HttpParserError as error:
            self._refuse(ApiError("bad_request", f"The request is not valid HTTP: {error}"[:200]))
        return b""

    def _ignore_upgrade(self, rest: bytes) -> bytes:
        """The request again, without its wish for another protocol.

        A server may ignore Upgrade (RFC 9110, section 7.8), and Java's client asks for h2c with
        every request; but llhttp then takes the body for the other protocol's first bytes.
        """
        request = self._coming
        assert request is not None
        self._coming = self._parser = None
        return checks.head_without_upgrade(request) + rest

    def _refuse_cause(self, error: httptools.HttpParserCallbackError) -> None:
        cause = error.__context__
        if isinstance(cause, ApiError):
            self._refuse(cause)
        else:
            _log.error("parser callback failed", exc_info=cause)
            self._refuse(ApiError("internal_error", "The server failed on this request."))

    def _refuse(self, error: ApiError) -> None:
        """Answer a broken request, after those before it, and close: the rest cannot be trusted."""
        if self._is_closing:
            return
        self._server.bad_requests += 1
        self._is_closing = True
        request = self._coming or Request(self)
        self._coming = None
        request.keep_alive = False
        request.refusal = error
        self._take(request)

    def _owe_continue(self) -> None:
        """Ask for the body, but not in the midst of an earlier response."""
        if self._active is None and not self._queue:
            self._owes_continue = False
            self._set_deadline(self._limits.body_timeout_s)
            self.send(None, _CONTINUE)
        else:
            self._owes_continue = True
            self.deadline = _NEVER

    # --- requests in order ---

    def on_response_end(self, request: Request) -> None:
        """The application has handed over the last byte of its answer."""
        if self._active is not request:
            return
        self._active = None
        request.answer = None  # it knows the request: no cycles
        if request.refusal is not None:
            self._linger()
        elif not request.keep_alive or self._server.is_draining:
            self._close()
        elif self._queue:
            self._advance()
        elif self._is_closing:
            return  # by the client
        elif self._coming is None:
            self._set_deadline(self._limits.idle_timeout_s)
        elif self._owes_continue:
            self._owe_continue()

    def _take(self, request: Request) -> None:
        if self._active is None and not self._queue and not self.is_paused:
            self._start(request)
            return
        if self._queue is None:
            self._queue = deque()
        self._queue.append(request)
        self._set_deadline(self._limits.idle_timeout_s if self._active is None else _NEVER)
        if len(self._queue) >= self._limits.pipeline_depth and self._transport is not None:
            self._transport.pause_reading()

    def _advance(self) -> None:
        """Start what waits, one by one, while the client takes its responses."""
        queue = self._queue
        if not queue or self._is_advancing:
            return
        self._is_advancing = True
        while queue and self._active is None and not self.is_paused and self._transport is not None:
            self._start(queue.popleft())
            queue = self._queue  # closing drops it
        self._is_advancing = False
        if not queue:
            self._read_on()
        elif self._active is None:
            self._set_deadline(self._limits.idle_timeout_s)  # for the client to read

    def _read_on(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing() or transport.is_reading():
            return
        if self._coming is not None:  # its time stood still
            self._set_deadline(self._limits.body_timeout_s)
        transport.resume_reading()

    def _start(self, request: Request) -> None:
        self._active = request
        if self._coming is None:
            self.deadline = _NEVER
        if request.refusal is not None:
            request.respond_error(request.refusal, self._app.lines(request))
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
            request.respond_error(error, self._app.lines(request))

    # --- time and ends ---

    def _set_deadline(self, seconds: float) -> None:
        self.deadline = self._server.clock() + seconds

    def on_timeout(self) -> None:
        """1 closing, but the client does not read: cut; 2 an idle connection: close without a word;
        3 a request half read: 408, unless it was this side that stopped reading."""
        self.deadline = _NEVER
        if self._is_closing:
            self.abort()
        elif self._coming is None:
            self._close(is_idle=True)
        elif self._transport is not None and self._transport.is_reading():
            self._refuse(ApiError("request_timeout", "The request did not arrive in time."))

    def on_drain(self) -> None:
        if self._active is None and self._coming is None and not self._queue:
            self._close(is_idle=True)

    def send(self, request: Request | None, data: bytes) -> None:
        """Bytes of the response under way; those of a request that has ended are dropped."""
        transport = self._transport
        if request is self._active and transport is not None and not transport.is_closing():
            transport.write(data)

    def abort(self) -> None:
        self._is_closing = True
        if self._transport is not None:
            self._transport.abort()

    def _linger(self) -> None:
        """Half-close, and let the client read its answer (RFC 9112, section 9.6)."""
        if self._transport is not None and not self._transport.is_closing():
            if self._transport.can_write_eof():  # not with TLS
                self._transport.write_eof()
            self._set_deadline(_LINGER_S)

    def _close(self, is_idle: bool = False) -> None:
        """Close when the client has read everything, within the idle time-out. With TLS it is to
        close its side, too, which the pool of an idle one does not do before it is used again."""
        self._is_closing, self._queue = True, None
        is_soon = is_idle and self.fileno < 0
        self._set_deadline(_LINGER_S if is_soon else self._limits.idle_timeout_s)
        if self._transport is not None:
            self._transport.close()
