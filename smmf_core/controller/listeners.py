"""The TCP sockets that clients connect to: bound here, so that they outlive Routers.

Owns binding; must not accept.
"""

from __future__ import annotations

import errno
import socket

from smmf_core.errors import ControlError

_BACKLOG = 4096  # connections the kernel keeps while a Router starts again


class Listeners:
    """One socket per Router on one address, sharing it by SO_REUSEPORT."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self._sockets: dict[int, socket.socket] = {}

    def check_free(self) -> None:
        """Raises ControlError when another process listens: SO_REUSEPORT alone would share."""
        if self.port:
            bind(self.host, self.port).close()

    def get(self, router: int) -> socket.socket:
        """The Router's socket, bound on first use. Raises ControlError."""
        found = self._sockets.get(router)
        if found is None:
            found = self._sockets[router] = bind(self.host, self.port, shared=True)
            self.port = found.getsockname()[1]
        return found

    def give_back(self, router: int, fd: int) -> None:
        """An adopted Router's own: the same socket that a former Controller bound."""
        sock = socket.socket(fileno=fd)
        former = self._sockets.pop(router, None)
        if former is not None:
            former.close()
        self._sockets[router] = sock
        self.port = self.port or sock.getsockname()[1]

    def close(self) -> None:
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()


class Ports:
    """All that clients connect to: HTTP, and the client library's TCP port if there is one."""

    def __init__(
        self, http: Listeners, lane: Listeners | None = None, public_key: bytes = b""
    ) -> None:
        """`public_key`: the lane's."""
        self.http = http
        self.lane = lane
        self.public_key = public_key

    def check_free(self) -> None:
        """Raises ControlError."""
        for listeners in self._all():
            listeners.check_free()

    def fds(self, router: int) -> list[int]:
        """What a Router listens on, bound on first use. Raises ControlError."""
        return [listeners.get(router).fileno() for listeners in self._all()]

    def give_back(self, router: int, fds: list[int]) -> None:
        """Takes those of `fds` that are an adopted Router's own out of it."""
        for listeners in self._all():
            if fds:
                listeners.give_back(router, fds.pop(0))

    def close(self) -> None:
        for listeners in self._all():
            listeners.close()

    def _all(self) -> list[Listeners]:
        return [self.http] if self.lane is None else [self.http, self.lane]


def bind(host: str, port: int, shared: bool = False) -> socket.socket:
    """A listening TCP socket. Raises ControlError that says what is in the way."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(address)
            sock.listen(_BACKLOG)
        except OSError:
            sock.close()
            raise
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ControlError(f"port {port} on {host} is in use") from None
        raise ControlError(f"cannot listen on {host}, port {port}: {error.strerror}") from None
    sock.setblocking(False)
    return sock
