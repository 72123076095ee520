"""One connection to one Router, and the requests that are open on it.

Owns the DEALER socket and what a connection's end means for its requests; must not choose Routers
or block.
"""

from __future__ import annotations

import msgspec
import zmq
from zmq.utils.monitor import recv_monitor_message

from smmf_core import __version__
from smmf_core.client.errors import ClientError, ConnectionLost, Protocol
from smmf_core.client.exchange import Exchange
from smmf_core.client.find import Endpoint
from smmf_core.lane_messages import (
    Answered,
    Cut,
    Ended,
    Events,
    FromLane,
    Misread,
    Ping,
    ToLane,
)
from smmf_core.messages import encode

_DRAINING = b'"server_draining"'
_FRAMES = 65_536
_POLLIN = int(zmq.POLLIN)
_HEARTBEAT_MS, _SILENT_MS = 5000, 15_000
_CONNECTED = int(zmq.EVENT_CONNECTED)
_UP = int(zmq.EVENT_HANDSHAKE_SUCCEEDED)
_DOWN = int(
    zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_CONNECT_RETRIED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_decode = msgspec.msgpack.Decoder(list[FromLane]).decode


class Link:
    """States: connecting -> up -> down; `is_leaving`: up, but takes no more requests;
    `was_refused`: something listens there, and it is no Router with that key."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: Endpoint) -> None:
        self.open: dict[int, Exchange] = {}
        self.is_up = self.is_down = self.is_leaving = self.was_refused = False
        self._is_connected = False
        self.moved: list[Exchange] = []  # to be sent to another Router: this one ends, or has
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.SNDHWM, _FRAMES)
        self.socket.setsockopt(zmq.RCVHWM, _FRAMES)
        self.socket.setsockopt(zmq.RECONNECT_IVL, -1)
        self.monitor = self.socket.get_monitor_socket(_UP | _DOWN | _CONNECTED)
        if endpoint.server_key:
            self._encrypt(endpoint.server_key)
            self.socket.setsockopt(zmq.IPV6, int(endpoint.is_v6))
        self.socket.connect(endpoint.name)

    def _encrypt(self, server_key: bytes) -> None:
        """With a key pair of this connection's own. The network may fail without a word."""
        self.socket.curve_publickey, self.socket.curve_secretkey = zmq.curve_keypair()
        self.socket.setsockopt(zmq.CURVE_SERVERKEY, server_key)
        self.socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
        self.socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _SILENT_MS)

    @property
    def fds(self) -> tuple[int, int]:
        """Both are edge-triggered: after one fires, and after sends, call receive."""
        return int(self.socket.getsockopt(zmq.FD)), int(self.monitor.getsockopt(zmq.FD))

    def send(self, messages: list[ToLane]) -> None:
        try:
            self.socket.send(encode(messages), zmq.NOBLOCK)
        except zmq.ZMQError:
            self.is_down = True  # full: the Router has not read for a long time

    def receive(self) -> None:
        """Take in everything that is there; hand it to its requests."""
        while not self.monitor.closed and int(self.monitor.get(zmq.EVENTS)) & _POLLIN:
            event = int(recv_monitor_message(self.monitor)["event"])
            self._is_connected = self._is_connected or bool(event & _CONNECTED)
            self.is_up = self.is_up or bool(event & _UP)
            self.is_down = self.is_down or bool(event & _DOWN)
        self.was_refused = self.is_down and self._is_connected and not self.is_up
        while int(self.socket.get(zmq.EVENTS)) & _POLLIN:
            try:
                messages = _decode(self.socket.recv(zmq.NOBLOCK))
            except (msgspec.MsgspecError, ValueError):
                self._end_all(_unknown("of another version"))
                self.is_down = True
                return
            for message in messages:
                self._on_message(message)
        if self.is_down:
            self._move_all()
            self._end_all(ConnectionLost("the connection to the server was lost"))

    def close(self) -> None:
        self.is_down = True
        self._end_all(ConnectionLost("the connection to the server was closed"))
        self.socket.disable_monitor()
        self.monitor.close(linger=0)
        self.socket.close(linger=0)

    # --- inside ---

    def _on_message(self, message: FromLane) -> None:
        if isinstance(message, Ping):
            return
        if isinstance(message, Events):
            for key, lines in message.parts:
                if (stream := self.open.get(key)) is not None:
                    stream.put(lines)
            return
        if isinstance(message, Misread):
            self._end_all(_unknown(message.build))
            return
        exchange = self.open.get(message.id)
        if exchange is None:
            return
        if isinstance(message, Answered):
            self._on_answered(exchange, message)
        elif isinstance(message, Cut):
            self._end(exchange, ClientError("the stream was not read, and the server ended it"))
        else:
            exchange.has_part = True
            exchange.is_over = isinstance(message, Ended)
            if exchange.is_over:
                del self.open[message.id]
            exchange.put(message)

    def _on_answered(self, exchange: Exchange, answered: Answered) -> None:
        del self.open[answered.id]
        if answered.status == 503 and not exchange.has_part and _DRAINING in answered.body:
            self.is_leaving = True
            self.moved.append(exchange)
            return
        exchange.is_over = True
        exchange.put(answered)

    def _move_all(self) -> None:
        """What nothing has come of is sent again, a few times."""
        for key, exchange in list(self.open.items()):
            if not exchange.has_part and exchange.retries > 0:
                exchange.retries -= 1
                del self.open[key]
                self.moved.append(exchange)

    def _end(self, exchange: Exchange, error: ClientError) -> None:
        self.open.pop(exchange.ask.id, None)
        exchange.is_over = True
        exchange.put(error)

    def _end_all(self, error: ClientError) -> None:
        for exchange in list(self.open.values()):
            self._end(exchange, error)


def _unknown(build: str) -> Protocol:
    return Protocol(f"this client ({__version__}) and the server ({build}) do not match")
