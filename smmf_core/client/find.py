"""Which socket to connect to: an address, or the run directory of this user's server.

Owns how a living Router is told from one that left its socket behind; must not speak to it.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

from smmf_core.config import Server, run_directory
from smmf_core.lane_messages import SOCKETS

_IPC = "ipc://"


def default_address() -> str:
    """This user's server: the run directory of `smmf serve` without a --name."""
    return f"{_IPC}{run_directory(Server())}"


def check_address(address: str) -> Path:
    """The path that it names. Raises ValueError for any other transport."""
    path = address.removeprefix(_IPC)
    if path == address or not path.startswith("/"):
        raise ValueError(f"the address must be ipc:// and an absolute path, not {address[:200]!r}")
    return Path(path)


def find_endpoint(path: Path) -> str | None:
    """A Router that listens: `path` itself, or any of a run directory's; None: nobody does."""
    candidates = list(path.glob(SOCKETS)) if path.is_dir() else [path]
    random.shuffle(candidates)
    return next((f"{_IPC}{found}" for found in candidates if _listens(found)), None)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
