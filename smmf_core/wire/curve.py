"""The key pair of the client library's TCP port (CURVE: Curve25519, ZeroMQ's RFC 26).

Keys are written as 64 hexadecimal digits: they fit into addresses and shells. Owns the file of the
secret one, which only its user may read; must not open sockets.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import zmq
from zmq.utils import z85

from smmf_core.errors import ControlError

_KEY_BYTES = 32


class KeyPair(NamedTuple):
    """Raw bytes."""

    public: bytes
    secret: bytes


def read_or_make(path: Path, may_make: bool) -> KeyPair:
    """Raises ControlError naming the file."""
    try:
        if may_make and not path.exists():
            _make(path)
        text = path.read_text("ascii").strip()
        if path.stat().st_mode & 0o077:
            raise ControlError(f"[server] zmq_key: others may read {path}: chmod 600 it")
    except (OSError, UnicodeDecodeError) as error:
        raise ControlError(f"[server] zmq_key: cannot use {path}: {error}") from None
    secret = _from_hex(text)
    if len(secret) != _KEY_BYTES:
        raise ControlError(f"[server] zmq_key: {path} must hold 64 hexadecimal digits")
    return KeyPair(z85.decode(zmq.curve_public(z85.encode(secret))), secret)


def _from_hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def _make(path: Path) -> None:
    """In one step: who starts at the same time finds a whole one, or makes another first."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}")
    with open(new, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(z85.decode(zmq.curve_keypair()[1]).hex() + "\n")
    new.replace(path)
