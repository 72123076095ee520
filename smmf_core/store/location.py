"""Where a server's registry and its keys are kept when its configuration does not say.

Must not create anything.
"""

from __future__ import annotations

import os
from pathlib import Path

from smmf_core.config import Server, ServerConfig


def state_directory(name: str) -> Path:
    """Of the server of that name: `$XDG_STATE_HOME/smmf/NAME`, else under `~/.local/state`."""
    base = os.environ.get("XDG_STATE_HOME")
    root = Path(base) if base else Path.home() / ".local" / "state"
    return root / "smmf" / name


def lane_key(server: Server) -> Path:
    """The file with the secret key of the client library's TCP port."""
    return Path(server.zmq_key or state_directory(server.name) / "client-port.key")


def registry_url(config: ServerConfig) -> str:
    """SQLAlchemy's URL: `[registry] url`, else an SQLite file in the state directory."""
    if config.registry.url:
        return config.registry.url
    return f"sqlite:///{state_directory(config.server.name) / 'registry.db'}"
