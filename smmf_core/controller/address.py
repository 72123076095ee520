"""Has the Routers of a running server answer at another address, or for other keys.

Owns the order of things: nothing is given up before the new address is ours. Must not decide when
that is wanted.
"""

from __future__ import annotations

from smmf_core.controller.listeners import Listeners
from smmf_core.controller.shell import ControllerShell


def move(shell: ControllerShell, host: str, port: int, api_keys: list[str]) -> bool:
    """Whether anything has changed. For another address the Routers finish what is open and start
    again; meanwhile who connects waits. Raises ControlError when the address cannot be had."""
    server = shell.config.server
    if (host, port, api_keys) == (server.host, server.port, server.api_keys):
        return False
    if (host, port) != (server.host, server.port):
        _listen(shell, host, port)
        shell.restart_routers()
    server.api_keys = api_keys
    shell.access.configure()
    return True


def _listen(shell: ControllerShell, host: str, port: int) -> None:
    fresh = Listeners(host, port)
    fresh.check_free()
    for router in shell.core.routers():
        fresh.get(router.id)
    shell.ports.http.close()
    shell.ports.http = fresh
    shell.config.server.host, shell.config.server.port = host, fresh.port
