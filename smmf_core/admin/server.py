"""Serves the admin application on a socket that is already bound, inside the Controller's loop.

Owns uvicorn's settings; must not touch signals: they are the Controller's.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn

from smmf_core import tls
from smmf_core.admin.app import create
from smmf_core.config.addresses import admin_has_tls
from smmf_core.controller.shell import ControllerShell

_KEEP_ALIVE_S = 5
_CLOSE_S = 1  # what is still being answered when the server ends


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(shell: ControllerShell, listener: socket.socket, ended: asyncio.Event) -> None:
    """Until `ended` is set."""
    config = uvicorn.Config(
        create(shell),
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_CLOSE_S,
    )
    config.load()
    server = shell.config.server
    if admin_has_tls(server):
        context = config.ssl = tls.server_context(server)
        shell.on_certificate = lambda: tls.load(context, server)
    serving = _Server(config)
    running = asyncio.create_task(serving.serve(sockets=[listener]))
    await ended.wait()
    serving.should_exit = True
    await running
    listener.close()
