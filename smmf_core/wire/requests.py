"""Requests and cancels between Routers and Workers over ZeroMQ, and the Router's end of the client
library's lane; the only file of the server that imports zmq.

A frame is a msgpack list of messages, so one loop turn costs one frame per peer. Neither side
blocks or queues here: high-water marks lie above any slot quota, so the Scheduler is the only
queue. Must not look into the messages.
"""

from __future__ import annotations

import os
import select
import socket
from pathlib import Path

import msgspec
import zmq

from smmf_core.messages import ToRouter, ToWorker, encode

_HIGH_WATER_FRAMES = 65_536  # far above the slots of any worker: a full pipe means a dead peer
_EVENTS, _POLLIN = int(zmq.EVENTS), int(zmq.POLLIN)  # plain numbers: enums cost a microsecond
_FIRST, _LAST = int(zmq.NOBLOCK | zmq.SNDMORE), int(zmq.NOBLOCK)  # parts of one frame
_HANDSHAKE_MS = 10_000  # for a stranger on the TCP port to show that it is none
_HEARTBEAT_MS, _SILENT_MS = 5000, 15_000  # a machine that is gone sends no end of file
_RECONNECT_MS = 20  # a Router that has just started may not have bound its socket yet

_to_worker = msgspec.msgpack.Decoder(list[ToWorker])
_to_router = msgspec.msgpack.Decoder(list[ToRouter])


def worker_identity(worker: int, incarnation: int) -> bytes:
    """The routing id of one worker incarnation (ids must not begin with a zero byte)."""
    return b"w%d.%d" % (worker, incarnation)


def _configure(socket: zmq.Socket[bytes]) -> None:
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, _HIGH_WATER_FRAMES)
    socket.setsockopt(zmq.RCVHWM, _HIGH_WATER_FRAMES)


class RouterSocket:
    """The Router's ROUTER socket. `fd` is edge-triggered: after it fires, receive until empty."""

    def __init__(self, endpoint: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        _configure(self._socket)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # an unknown peer is an error, not a loss
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self._socket.bind(endpoint)
        self.fd = int(self._socket.getsockopt(zmq.FD))

    def send(self, identity: bytes, messages: list[ToWorker]) -> bool:
        """Send one frame; False when the peer is unknown or its pipe is full."""
        frame = encode(messages)  # first: half a message would swallow the next one
        try:
            self._socket.send(identity, _FIRST)
            self._socket.send(frame, _LAST)
        except zmq.ZMQError:
            return False
        return True

    def receive(self) -> list[tuple[bytes, list[ToRouter]]]:
        """All frames that have arrived, as (identity, messages); a malformed one is left out."""
        frames: list[tuple[bytes, list[ToRouter]]] = []
        while int(self._socket.get(_EVENTS)) & _POLLIN:
            identity, *rest = self._socket.recv_multipart(zmq.NOBLOCK)
            try:
                frames.append((identity, _to_router.decode(rest[-1] if rest else b"")))
            except (msgspec.MsgspecError, ValueError):
                continue
        return frames

    def close(self) -> None:
        self._socket.close()
        self._context.term()


class LaneSocket:
    """A Router's ROUTER socket for the client library; the ids of its peers are ZeroMQ's own, one
    per connection. `fd` is edge-triggered: after it fires, and after sends, receive until empty."""

    def __init__(self, frame_bytes: int) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        _configure(self._socket)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.MAXMSGSIZE, frame_bytes)  # a longer one ends its connection
        self.fd = int(self._socket.getsockopt(zmq.FD))
        self._endpoint = ""
        self._path: Path | None = None

    def bind(self, path: Path) -> None:
        """On this machine, for this user."""
        self._path, self._endpoint = path, f"ipc://{path}"
        self._socket.bind(self._endpoint)
        path.chmod(0o600)

    def serve(self, listener: socket.socket, secret_key: bytes) -> None:
        """On a TCP socket that listens: encrypted, for who knows our public key. The clients' own
        key pairs are made up for each connection: their API key says who they are, so nobody is
        asked about them (no ZAP)."""
        self._socket.setsockopt(zmq.CURVE_SERVER, 1)
        self._socket.setsockopt(zmq.CURVE_SECRETKEY, secret_key)
        self._socket.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
        self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _SILENT_MS)
        host, port = listener.getsockname()[:2]
        self._socket.setsockopt(zmq.IPV6, int(":" in host))
        self._socket.setsockopt(zmq.USE_FD, os.dup(listener.fileno()))  # ZeroMQ's from here on
        self._endpoint = f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
        self._socket.bind(self._endpoint)

    def accept_no_more(self) -> None:
        """Connections that there are go on."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)  # at once: ZeroMQ takes its time
        if self._endpoint:
            self._socket.unbind(self._endpoint)
            self._endpoint = ""

    def send(self, identity: bytes, frame: bytes) -> bool:
        """False: the client is gone, or has read nothing for thousands of frames."""
        try:
            self._socket.send(identity, _FIRST)
            self._socket.send(frame, _LAST)
        except zmq.ZMQError:
            return False
        return True

    def receive(self, limit: int) -> list[tuple[bytes, bytes]]:
        """At most `limit` frames that have arrived, as (identity, frame)."""
        frames: list[tuple[bytes, bytes]] = []
        while len(frames) < limit and int(self._socket.get(_EVENTS)) & _POLLIN:
            identity, *rest = self._socket.recv_multipart(zmq.NOBLOCK)
            frames.append((identity, rest[-1] if rest else b""))
        return frames

    def close(self, linger_ms: int) -> None:
        """Last frames get so long to leave."""
        self.accept_no_more()
        self._socket.close(linger=linger_ms)
        self._context.term()


class WorkerContext:
    """The Worker's one ZeroMQ context; makes a DEALER per Router."""

    def __init__(self) -> None:
        self._context = zmq.Context()

    def connect(self, endpoint: str, identity: bytes) -> WorkerSocket:
        socket = self._context.socket(zmq.DEALER)
        _configure(socket)
        socket.setsockopt(zmq.ROUTING_ID, identity)
        socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
        socket.connect(endpoint)
        return WorkerSocket(socket)

    def close(self) -> None:
        self._context.destroy(linger=0)


class WorkerSocket:
    """One DEALER to one Router."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        self.fd = int(socket.getsockopt(zmq.FD))
        self._poll = select.poll()
        self._poll.register(self.fd, select.POLLIN)
        self._looks_again = True  # sending may have used up the descriptor's signal

    def send(self, messages: list[ToRouter]) -> None:
        """Send one frame. Raises zmq.Again never in practice: only Ready goes this way."""
        self._socket.send(encode(messages), zmq.NOBLOCK)
        self._looks_again = True

    def receive(self) -> list[ToWorker]:
        """All messages that have arrived. Raises msgspec.ValidationError on a malformed frame."""
        messages: list[ToWorker] = []
        if not self._looks_again and not self._poll.poll(0):  # a third of asking ZeroMQ
            return messages
        self._looks_again = True  # also after a malformed frame
        while int(self._socket.get(_EVENTS)) & _POLLIN:
            messages += _to_worker.decode(self._socket.recv(zmq.NOBLOCK))
        self._looks_again = False
        return messages

    def close(self) -> None:
        self._socket.close(linger=0)
