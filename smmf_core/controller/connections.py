"""The control sockets of all children, on the Controller's loop.

Nothing blocks: messages to a slow child queue in its Channel. Owns the sockets; must not know what
a message means.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from smmf_core.control_messages import Drain, Hello, ToChild
from smmf_core.controller.table import Key
from smmf_core.lifecycle import Child
from smmf_core.messages import Message
from smmf_core.wire.control import Channel, ControlServer


class Listener(Protocol):
    """Who is told what comes in."""

    def identify(self, hello: Hello, pid: int) -> Child | None:
        """Whose first words these are; `pid` by the kernel's word. None: a stranger's."""

    def on_hello(self, child: Child, hello: Hello, fds: list[int]) -> None:
        """It can be sent to now. The descriptors are the listener's."""

    def on_message(self, child: Child, message: Message) -> None: ...
    def on_disconnect(self, child: Child) -> None: ...


class Connections:
    """At most one socket per child: a newer one replaces the older."""

    def __init__(self, run_dir: Path, listener: Listener) -> None:
        self._listener = listener
        self._server = ControlServer(run_dir)
        self._channels: dict[Key, Channel] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def run_on(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        loop.add_reader(self._server.fd, self._on_connect)

    def send(self, child: Child, message: ToChild, fds: Sequence[int] = ()) -> None:
        """To a child that is connected; else nothing. The caller keeps its descriptors."""
        channel = self._channels.get(child.key)
        if channel is None:
            return
        fd = channel.fd
        channel.send(message, fds)
        if channel.closed:  # it has just died: the loop must not go on watching a number
            self._forget(channel, fd, child)
        self._watch(channel)

    def take_last_words(self, child: Child) -> None:
        """It died: read what it had still sent, and close."""
        channel = self._channels.get(child.key)
        if channel is not None:
            fd = channel.fd
            self._on_readable(channel, child)
            if self._channels.get(child.key) is channel:
                self._forget(channel, fd, child)

    def close(self) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._server.fd)
        self._loop = None
        for channel in self._channels.values():
            channel.close()
        self._server.close()

    def adopt(self, channel: Channel, child: Child) -> None:
        """From here on this socket is the child's."""
        assert self._loop is not None
        former = self._channels.get(child.key)
        if former is not None and former is not channel:
            self._forget(former, former.fd, None)
        self._channels[child.key] = channel
        self._loop.add_reader(channel.fd, self._on_readable, channel, child)

    def _on_connect(self) -> None:
        assert self._loop is not None
        for channel in self._server.accept():
            self._loop.add_reader(channel.fd, self._on_readable, channel, None)

    def _on_readable(self, channel: Channel, child: Child | None) -> None:
        fd = channel.fd
        for message, fds in channel.receive():
            if isinstance(message, Hello):
                child = self._on_hello(channel, message, fds)
            else:
                close_all(fds)
            if child is None:
                channel.send(Drain(0.0))  # nobody of ours: a child whose record was lost
                channel.close()
                break
            if not isinstance(message, Hello):
                self._listener.on_message(child, message)
        if channel.closed:
            self._forget(channel, fd, child)

    def _on_hello(self, channel: Channel, hello: Hello, fds: list[int]) -> Child | None:
        child = self._listener.identify(hello, channel.peer()[0])
        if child is None:
            close_all(fds)
            return None
        self.adopt(channel, child)
        self._listener.on_hello(child, hello, fds)
        return child

    def _watch(self, channel: Channel) -> None:
        """Have what is queued sent as soon as the child reads again."""
        if channel.is_blocked and not channel.closed and self._loop is not None:
            self._loop.add_writer(channel.fd, self._on_writable, channel)

    def _on_writable(self, channel: Channel) -> None:
        assert self._loop is not None
        fd = channel.fd
        if channel.flush():
            self._loop.remove_writer(fd)
        elif channel.closed:
            self._forget(channel, fd, None)

    def _forget(self, channel: Channel, fd: int, child: Child | None) -> None:
        """A connection ended. `fd` is its descriptor while it was open."""
        assert self._loop is not None
        if fd >= 0:
            self._loop.remove_reader(fd)
            self._loop.remove_writer(fd)
        channel.close()
        if child is not None and self._channels.get(child.key) is channel:
            del self._channels[child.key]
            self._listener.on_disconnect(child)


def close_all(fds: list[int]) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
