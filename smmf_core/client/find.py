"""Where a server's Routers are: an address, or the run directory of this user's server.

Owns what an address may be, and how a living Router is told from one that left its socket behind;
must not speak to it.
"""

from __future__ import annotations

import itertools
import os
import random
import socket
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import parse_qs, urlsplit

from smmf_core.config import Server, run_directory
from smmf_core.lane_messages import SOCKETS

_IPC = "ipc://"
_KEY_BYTES = 32
_V6 = 6
_KEY_VARIABLE = "SMMF_SERVER_KEY"


class Endpoint(NamedTuple):
    """A Router's, as ZeroMQ has it. `server_key`: b"" on this machine, where nothing is secret."""

    name: str
    server_key: bytes = b""
    is_v6: bool = False


class Address(Protocol):
    def endpoint(self) -> Endpoint | None:
        """Of a Router to connect to now; None: nobody is there."""


class Folder:
    """A Router's socket, or the run directory with those of all of them."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return f"{_IPC}{self._path}"

    def endpoint(self) -> Endpoint | None:
        candidates = list(self._path.glob(SOCKETS)) if self._path.is_dir() else [self._path]
        random.shuffle(candidates)
        return next((Endpoint(f"{_IPC}{found}") for found in candidates if _listens(found)), None)


class Port:
    """A TCP port that all Routers share: the kernel chooses one for each connection."""

    def __init__(self, host: str, port: int, server_key: bytes) -> None:
        self._name = f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
        self._server_key = server_key
        self._families = itertools.cycle(_families(host))

    def __str__(self) -> str:
        return self._name

    def endpoint(self) -> Endpoint | None:
        return Endpoint(self._name, self._server_key, next(self._families))


def _families(host: str) -> tuple[bool, ...]:
    """ZeroMQ tries one address only: a name that has two is tried as IPv4, then as IPv6."""
    try:
        return (ip_address(host).version == _V6,)
    except ValueError:
        return (False, True)


def find(address: str | None, server_key: str | None) -> Address:
    """None: this user's server, as `smmf serve` without a --name has it. Raises ValueError."""
    if address is None:
        return Folder(run_directory(Server()))
    scheme, _, path = address.partition("://")
    if scheme == "ipc" and path.startswith("/"):
        return Folder(Path(path))
    if scheme == "tcp":
        return _port(address, server_key)
    raise ValueError(
        "the address must be ipc:// and an absolute path, or tcp://host:port, "
        f"not {address[:200]!r}"
    )


def _port(address: str, server_key: str | None) -> Port:
    """The key: as given, or in the address, or in the environment."""
    try:
        split = urlsplit(address)
        host, port = split.hostname, split.port
    except ValueError:
        host = port = None
    if not host or not port or split.path not in ("", "/"):
        raise ValueError(f"the address must be tcp://host:port?key=KEY, not {address[:200]!r}")
    in_address = parse_qs(split.query).get("key", [""])[0]
    key = server_key or in_address or os.environ.get(_KEY_VARIABLE, "")
    if not key:
        raise ValueError(
            f"{address} needs the server's public key, which `smmf serve` tells: ?key=KEY in the "
            f"address, server_key= or {_KEY_VARIABLE}"
        )
    return Port(host, port, _raw(key))


def _raw(key: str) -> bytes:
    try:
        raw = bytes.fromhex(key.strip())
    except ValueError:
        raw = b""
    if len(raw) != _KEY_BYTES:
        raise ValueError("a server's key has 64 hexadecimal digits")
    return raw


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
