"""The Controller process: starts everything, then watches.

Its event loop blocks nowhere and queues nothing but control messages; the core owns what runs, the
shell how. Must not be on the way of a request, nor import what is.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Protocol

from smmf_core.config import ModelConfig, ServerConfig, run_directory
from smmf_core.controller import process
from smmf_core.controller.listeners import Listeners, bind
from smmf_core.controller.run_dir import RunDir
from smmf_core.controller.shell import ControllerShell
from smmf_core.lifecycle import FAILED, READY, Child

if TYPE_CHECKING:
    import asyncio
    import socket

ADMIN_DELAY_S = 1.0  # importing the admin API costs a core 0.2 s that a loading Worker can use
TICK_S = 1.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Observer(Protocol):
    """Whoever shows the user what happens."""

    def changed(self, shell: ControllerShell, child: Child, former: str) -> None: ...
    def ready(self, shell: ControllerShell) -> None:
        """Once, when nothing is on its way any more and a model can answer."""

    def failed(self, shell: ControllerShell) -> None:
        """Once, when nothing is on its way any more and no model can answer."""


def run(config: ServerConfig, models: list[ModelConfig], observer: Observer) -> int:
    """Until shut down; returns the exit status. Raises ControlError when it cannot start."""
    asked: list[int] = []  # signals that came before the loop runs
    for number in _SIGNALS:
        signal.signal(number, lambda number, _: asked.append(number))
    process.become_subreaper()
    server = config.server
    run_dir = RunDir(run_directory(server))
    run_dir.lock(server.name)
    admin = bind(server.admin_host, server.admin_port)
    server.admin_port = admin.getsockname()[1]
    listeners = Listeners(server.host, server.port)
    shell = ControllerShell(config, models, run_dir, listeners)
    shell.on_change = lambda child, former: observer.changed(shell, child, former)
    shell.start()
    server.port = listeners.port or server.port

    import uvloop  # the children are on their way; now there is time for the rest

    status: int = uvloop.run(_watch(shell, admin, observer, asked))
    return status


async def _watch(
    shell: ControllerShell, admin: socket.socket, observer: Observer, asked: list[int]
) -> int:
    import asyncio

    loop = asyncio.get_running_loop()
    life = _Life(shell, observer, asyncio.Event(), asyncio.Event())
    shell.run_on(loop)
    for number in _SIGNALS:
        loop.add_signal_handler(number, life.on_signal)
    if asked:
        life.on_signal()
    loop.call_later(ADMIN_DELAY_S, life.may_serve_admin.set)
    serving = asyncio.create_task(_serve_admin(shell, admin, life))
    while not life.ended.is_set():
        shell.tick()
        try:
            await asyncio.wait_for(life.ended.wait(), TICK_S)
        except TimeoutError:
            continue
    await serving
    for number in _SIGNALS:  # an impatient user's third one comes too late to matter
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)
    shell.close()
    return life.status


class _Life:
    """The few moments of a Controller: settled for the first time, ending, ended."""

    def __init__(
        self,
        shell: ControllerShell,
        observer: Observer,
        ended: asyncio.Event,
        may_serve_admin: asyncio.Event,
    ) -> None:
        self.status = 0
        self.ended = ended
        self.may_serve_admin = may_serve_admin
        self._shell = shell
        self._observer = observer
        self._is_announced = False
        shell.on_settled = self._on_settled

    def on_signal(self) -> None:
        """The first asks, the second insists."""
        self._shell.shut_down(force=self._shell.core.is_stopping)

    def _on_settled(self) -> None:
        core = self._shell.core
        if not self._is_announced and core.is_settled and not core.is_stopping:
            self._is_announced = True
            self.may_serve_admin.set()
            if any(child.state == READY for child in core.workers()):
                self._observer.ready(self._shell)
            else:
                self._observer.failed(self._shell)
        if not core.is_stopping and all(child.state == FAILED for child in core.routers()):
            self.status = 1
            self._shell.shut_down(force=False)
        if core.is_stopped:
            self.may_serve_admin.set()
            self.ended.set()


async def _serve_admin(shell: ControllerShell, listener: socket.socket, life: _Life) -> None:
    await life.may_serve_admin.wait()
    if life.ended.is_set():
        listener.close()
        return
    from smmf_core.admin.server import serve

    await serve(shell, listener, life.ended)
