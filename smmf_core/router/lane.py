"""The fast lane: the client library's requests over ZeroMQ, answered by what answers HTTP's.

Owns the lane's socket, its clients and how much of each stream they have not read; checks, keys,
models and queues are http.routes' and the core's. Must not decode bodies.

A ROUTER socket is not told when a peer leaves, but a send to one that has left fails at once: a
client with open requests is sent something at least every PING_S, so its requests are cancelled
that soon after its end. A client that lives and does not read holds a window's bytes per stream.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from smmf_core import __version__
from smmf_core.errors import ApiError
from smmf_core.http.request import Request
from smmf_core.http.server import Application
from smmf_core.lane_messages import (
    PING_S,
    WINDOW_BYTES,
    Answered,
    Ask,
    Began,
    Cut,
    Ended,
    Events,
    FromLane,
    Grant,
    Misread,
    Ping,
    Stop,
    ToLane,
)
from smmf_core.messages import encode
from smmf_core.wire.requests import LaneSocket

MAX_OPEN = 8192  # requests of one client
_FRAMES = 256  # that one turn takes in
_SPARE_BYTES = 1 << 20  # of a frame, beside one longest body: more requests in the same turn
_LINGER_MS = 1000
_decode = msgspec.msgpack.Decoder(list[ToLane]).decode
_log = logging.getLogger("smmf.router.lane")


class Peer:
    """One connection of a client."""

    __slots__ = ("identity", "lines", "open", "outbox", "sent_at")

    def __init__(self, identity: bytes) -> None:
        self.identity = identity
        self.open: dict[int, LaneRequest] = {}
        self.outbox: list[FromLane] = []
        self.lines: list[tuple[int, bytes]] | None = None  # of the outbox's last message
        self.sent_at = 0.0


class LaneRequest(Request):
    """A request as http.routes and the answers know one; its way back is the lane."""

    __slots__ = ("_began", "_headers", "_id", "_lane", "_peer", "_unread", "_was_paused")

    def __init__(self, lane: Lane, peer: Peer, ask: Ask) -> None:
        self.method = "GET" if not ask.body else "POST"
        self.target = ask.path.encode()
        self.headers = _headers(ask)
        self.body = ask.body
        self.is_streaming = False
        self.answer = None
        self.refusal = None
        self._lane, self._peer, self._id = lane, peer, ask.id
        self._headers = b""
        self._began = self._was_paused = False
        self._unread = 0

    @property
    def path(self) -> str:
        return self.target.decode()

    @property
    def fileno(self) -> int:
        return -1

    @property
    def chunked(self) -> bool:
        return False

    @property
    def is_paused(self) -> bool:
        self._was_paused = self._unread >= WINDOW_BYTES
        return self._was_paused

    def head(self, status: int, headers: bytes) -> bytes:
        self._headers = headers
        return b""

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        self._say(Answered(self._id, status, headers, body))
        self._end()

    def refuse(self, error: ApiError) -> None:
        """As what the application would answer."""
        self.respond(error.status, error.header_lines(), error.body())

    def write_raw(self, data: bytes) -> None:
        if not self._began:
            self._began = True
            self._say(Began(self._id, self._headers))
        self._unread += len(data)
        if self._peer.lines is not None:
            self._peer.lines.append((self._id, data))
        else:
            self._lane.begin_lines(self._peer, (self._id, data))

    def end_stream(self, close: bool) -> None:
        self._say(Ended(self._id))
        self._end()

    def abort(self) -> None:
        """It is not read, or cannot be answered any more."""
        self._say(Cut(self._id))
        self._end()
        self._lane.forget_later(self)

    def granted(self, read: int) -> bool:
        """Its reader has taken bytes; whether more may be sent that could not before."""
        self._unread = max(0, self._unread - max(0, read))
        return self._was_paused and self._unread <= WINDOW_BYTES // 2

    def _say(self, message: FromLane) -> None:
        if self._peer.open.get(self._id) is self:
            self._lane.say(self._peer, message)

    def _end(self) -> None:
        if self._peer.open.get(self._id) is self:
            del self._peer.open[self._id]


class Lane:
    """One of the lane's sockets at one Router. Works in the event loop that makes it."""

    def __init__(self, body_bytes: int, clock: Callable[[], float]) -> None:
        """`socket` is bound by whoever makes it, before `open`."""
        self._body_bytes = body_bytes
        self._clock = clock
        self._app: Application | None = None
        self._peers: dict[bytes, Peer] = {}
        self._due: dict[Peer, None] = {}  # those with something to be sent
        self._flush_due = False
        self._is_draining = False
        self._loop = asyncio.get_running_loop()
        self.socket = LaneSocket(body_bytes + _SPARE_BYTES)

    def open(self, app: Application) -> None:
        """Take requests from now on."""
        self._app = app
        self._loop.add_reader(self.socket.fd, self._on_readable)
        self._on_readable()

    def begin_drain(self) -> None:
        """Nothing new: clients go elsewhere."""
        if not self._is_draining:
            self._is_draining = True
            self.socket.accept_no_more()

    def on_tick(self, now: float) -> None:
        for peer in self._peers.values():
            if peer.open and now - peer.sent_at >= PING_S:
                self.say(peer, Ping())
        self._flush()

    def close(self) -> None:
        self._flush()
        self._loop.remove_reader(self.socket.fd)
        self.socket.close(_LINGER_MS)

    # --- to clients ---

    def say(self, peer: Peer, message: FromLane) -> None:
        """In the one frame that this client gets at the end of the turn."""
        peer.outbox.append(message)
        peer.lines = None
        self._due[peer] = None
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def begin_lines(self, peer: Peer, first: tuple[int, bytes]) -> None:
        """What follows goes into the same message, until there is another."""
        lines = [first]
        self.say(peer, Events(lines))
        peer.lines = lines

    def _flush(self) -> None:
        self._flush_due = False
        if not self._due:
            return
        due, self._due = self._due, {}
        now = self._clock()
        for peer in due:
            messages, peer.outbox, peer.sent_at = peer.outbox, [], now
            peer.lines = None
            if not self.socket.send(peer.identity, encode(messages)):
                self._gone(peer)
            elif not peer.open:
                self._peers.pop(peer.identity, None)
        self._on_readable()  # a send may take the wake-up of a frame that has come

    def _gone(self, peer: Peer) -> None:
        self._peers.pop(peer.identity, None)
        requests = list(peer.open.values())
        peer.open.clear()
        for request in requests:
            self._forget(request)

    def forget_later(self, request: LaneRequest) -> None:
        self._loop.call_soon(self._forget, request)

    def _forget(self, request: LaneRequest) -> None:
        if self._app is not None:
            self._app.on_disconnect(request)

    # --- from clients ---

    def _on_readable(self) -> None:
        frames = self.socket.receive(_FRAMES)
        for identity, frame in frames:
            peer = self._peers.get(identity)
            if peer is None:
                peer = self._peers[identity] = Peer(identity)
                peer.sent_at = self._clock()
            try:
                messages = _decode(frame)
            except (msgspec.MsgspecError, ValueError):
                self.say(peer, Misread(__version__))
                continue
            for message in messages:
                self._on_message(peer, message)
            if not peer.open and not peer.outbox:
                self._peers.pop(identity, None)
        if len(frames) == _FRAMES:  # the answers to these come first
            self._loop.call_soon(self._on_readable)

    def _on_message(self, peer: Peer, message: ToLane) -> None:
        assert self._app is not None
        if isinstance(message, Ask):
            self._on_ask(self._app, peer, message)
        elif isinstance(message, Stop):
            request = peer.open.pop(message.id, None)
            if request is not None:
                self._app.on_disconnect(request)
        elif isinstance(message, Grant):
            request = peer.open.get(message.id)
            if request is not None and request.granted(message.read):
                self._app.on_writable(request)

    def _on_ask(self, app: Application, peer: Peer, ask: Ask) -> None:
        if ask.id in peer.open:
            self.say(peer, Misread(__version__))
            return
        request = peer.open[ask.id] = LaneRequest(self, peer, ask)
        refusal = self._refusal(peer, ask)
        if refusal is not None:
            request.refuse(refusal)
            return
        try:
            app.on_request(request)
        except Exception:
            _log.exception("%s failed", ask.path[:200])
            error = ApiError("internal_error", "The server failed on this request.")
            request.refuse(error)
            app.on_disconnect(request)  # it may have been queued

    def _refusal(self, peer: Peer, ask: Ask) -> ApiError | None:
        if self._is_draining:
            return ApiError("server_draining", "The server is ending.", retry_after_s=1)
        if len(ask.body) > self._body_bytes:
            text = f"The body is too large: at most {self._body_bytes} bytes."
            return ApiError("request_too_large", text)
        if len(peer.open) > MAX_OPEN:
            text = f"This client has {MAX_OPEN} open requests."
            return ApiError("queue_full", text, retry_after_s=1)
        return None


def _headers(ask: Ask) -> dict[bytes, bytes]:
    headers: dict[bytes, bytes] = {}
    if ask.key:
        headers[b"authorization"] = b"Bearer " + ask.key.encode()
    if ask.request_id:
        headers[b"x-request-id"] = ask.request_id.encode()
    return headers
