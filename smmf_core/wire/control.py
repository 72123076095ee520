"""The control socket: messages and descriptors between the Controller and its children.

One Unix SEQPACKET socket in the run directory carries msgpack messages with SCM_RIGHTS. A message
larger than a packet goes as several, since a packet may not exceed the send buffer; a heartbeat,
which another thread sends, may come between these. End-of-file is the death notice in both
directions. Loop-agnostic: nothing here blocks or sleeps. Must not
interpret messages beyond Hello's and Welcome's place in the handshake.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from smmf_core.control_messages import (
    FromChild,
    Heartbeat,
    Hello,
    ToChild,
    Welcome,
)
from smmf_core.messages import Message, encode

SOCKET_NAME = "control.sock"
RETRY_S = 0.2  # between a child's attempts to reach a Controller that is not there
PACKET_BYTES = 32_768  # a quarter of the least send buffer that Linux gives by default
SEND_BUFFER_BYTES = 1 << 20  # asked for; the kernel grants up to net.core.wmem_max
MAX_MESSAGE_BYTES = 64 << 20  # 1,000 models take about 1 MiB: more than this is a broken peer
_RIGHTS_BYTES = socket.CMSG_SPACE(8 * struct.calcsize("i"))  # eight descriptors: the most is 4
_BACKLOG = 256
_MORE, _LAST, _WHOLE = b"\x01", b"\x00", b"\x02"
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid

_to_child = msgspec.msgpack.Decoder(ToChild)
_from_child = msgspec.msgpack.Decoder(FromChild)


def spec_digest(spec: bytes) -> str:
    """The name of a Welcome's spec: equal digests need no restart."""
    return hashlib.blake2b(spec, digest_size=16).hexdigest()


def heartbeat_packet() -> bytes:
    """A Heartbeat for whoever sends on a child's socket by itself, beside its Channel."""
    return _WHOLE + encode(Heartbeat())


class Channel:
    """One connected control socket: whole messages with their descriptors, never blocking.

    `decoder` is the peer's union of messages. `closed` after end-of-file or a broken message.
    """

    def __init__(self, sock: socket.socket, decoder: msgspec.msgpack.Decoder[Message]) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._socket = sock
        self._decoder = decoder
        self._packets: deque[tuple[bytes, list[int]]] = deque()  # waiting, descriptors own
        self._parts: list[bytes] = []
        self._part_bytes = 0
        self._fds: list[int] = []
        self.closed = False

    @property
    def fd(self) -> int:
        return self._socket.fileno()

    @property
    def is_blocked(self) -> bool:
        """Packets wait until the socket is writable: call `flush` then."""
        return bool(self._packets)

    def peer(self) -> tuple[int, int]:
        """(pid, uid) of the process that connected, by the kernel's word."""
        raw = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _ = _CREDENTIALS.unpack(raw)
        return pid, uid

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send, or queue what does not fit. The caller keeps its descriptors and may close them."""
        if self.closed:
            return
        body = encode(message)
        last = max(0, (len(body) - 1) // PACKET_BYTES)
        for index in range(last):
            part = body[index * PACKET_BYTES : (index + 1) * PACKET_BYTES]
            self._packets.append((_MORE + part, []))
        own = [os.dup(fd) for fd in fds]
        self._packets.append((_LAST + body[last * PACKET_BYTES :], own))
        self.flush()

    def flush(self) -> bool:
        """Send what waits; True when nothing is left."""
        while self._packets and not self.closed:
            packet, fds = self._packets[0]
            try:
                self._socket.sendmsg([packet], _rights(fds), socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return False
            except OSError:
                self.close()
                return False
            self._packets.popleft()
            _close_all(fds)
        return not self._packets

    def receive(self) -> list[tuple[Message, list[int]]]:
        """All whole messages that are there. The caller owns the descriptors."""
        messages: list[tuple[Message, list[int]]] = []
        while not self.closed:
            try:
                packet, ancillary, flags, _ = self._socket.recvmsg(
                    PACKET_BYTES + 1, _RIGHTS_BYTES, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                break
            except ConnectionResetError:  # it ended with words of ours unread: told once, and
                continue  # before its own last words, which are still to be read (unix(7))
            except OSError:
                self.close()
                break
            self._fds += _descriptors(ancillary)
            if not packet or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                self.close()
                break
            if packet[:1] == _WHOLE:
                self._decode(packet[1:], [], messages)
                continue
            self._parts.append(packet[1:])
            self._part_bytes += len(packet)
            if self._part_bytes > MAX_MESSAGE_BYTES:
                self.close()
            elif packet[:1] == _LAST:
                self._complete(messages)
        return messages

    def _complete(self, messages: list[tuple[Message, list[int]]]) -> None:
        body = b"".join(self._parts)
        self._parts.clear()
        self._part_bytes = 0
        fds, self._fds = self._fds, []
        self._decode(body, fds, messages)

    def _decode(
        self, body: bytes, fds: list[int], messages: list[tuple[Message, list[int]]]
    ) -> None:
        try:
            messages.append((self._decoder.decode(body), fds))
        except msgspec.MsgspecError:
            _close_all(fds)
            self.close()

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._socket.close()
        _close_all(self._fds)
        for _, fds in self._packets:
            _close_all(fds)
        self._packets.clear()
        self._fds = []


class ControlServer:
    """The Controller's end: a listening socket that yields a Channel per child."""

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / SOCKET_NAME
        self.path.unlink(missing_ok=True)  # a dead Controller's; the run directory's lock is ours
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        self._socket.bind(str(self.path))
        self._socket.listen(_BACKLOG)
        self.fd = self._socket.fileno()

    def accept(self) -> list[Channel]:
        """Everyone who has connected and runs as our own user."""
        channels: list[Channel] = []
        while True:
            try:
                sock, _ = self._socket.accept()
            except OSError:  # none left; or the peer gave up, or descriptors are out
                return channels
            channel = Channel(sock, _from_child)
            if channel.peer()[1] == os.geteuid():
                channels.append(channel)
            else:
                channel.close()

    def close(self) -> None:
        self._socket.close()
        self.path.unlink(missing_ok=True)


class ControlClient:
    """A child's end: says Hello at every (re)connect, and knows since when it is alone.

    `fd` is to be polled for reading; it is -1 while there is no Controller, and then `connect` is
    to be called every RETRY_S. After `timeouts.grace_s` beyond `lost_since` the child drains.
    """

    def __init__(self, run_dir: Path, hello: Callable[[], tuple[Hello, list[int]]]) -> None:
        self._path = str(run_dir / SOCKET_NAME)
        self._hello = hello
        self._channel: Channel | None = None
        self._tried_at = -RETRY_S
        self.lost_since: float | None = None
        self.spec_hash = ""  # of the last Welcome, for Hello

    @property
    def fd(self) -> int:
        return self._channel.fd if self._channel is not None else -1

    def connect(self, now: float) -> bool:
        """Try to reach the Controller, at most every RETRY_S; True when connected."""
        if self._channel is not None:
            return True
        if self.lost_since is None:
            self.lost_since = now
        if now - self._tried_at < RETRY_S:
            return False
        self._tried_at = now
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.setblocking(False)
            sock.connect(self._path)
        except OSError:
            sock.close()
            return False
        self._channel = Channel(sock, _to_child)
        self.lost_since = None
        message, fds = self._hello()
        return self.send(message, fds)

    def receive(self) -> list[tuple[ToChild, list[int]]]:
        """All messages that are there; the caller owns their descriptors."""
        if self._channel is None:
            return []
        messages: list[tuple[ToChild, list[int]]] = self._channel.receive()  # type: ignore[assignment]
        for message, _ in messages:
            if isinstance(message, Welcome):
                self.spec_hash = spec_digest(message.spec)
        self._forget_closed()
        return messages

    def send(self, message: FromChild, fds: Sequence[int] = ()) -> bool:
        """Send; False when not connected or the former message still waits (loss is fine)."""
        channel = self._channel
        if channel is None or not channel.flush():
            self._forget_closed()
            return False
        channel.send(message, fds)
        self._forget_closed()
        return self._channel is not None

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _forget_closed(self) -> None:
        if self._channel is not None and self._channel.closed:
            self._channel = None


def _rights(fds: list[int]) -> list[tuple[int, int, bytes]]:
    """Ancillary data; socket.send_fds and recv_fds ignore their flags (Python 3.11)."""
    if not fds:
        return []
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))]


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    return [
        fd
        for level, kind, data in ancillary
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS
        for (fd,) in struct.iter_unpack("i", data)
    ]


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
