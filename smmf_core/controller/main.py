"""The Controller process: starts everything, then watches.

Its event loop blocks nowhere and queues nothing but control messages; the core owns what runs, the
shell how. Must not be on the way of a request, nor import what is.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from smmf_core import logs, tls
from smmf_core.config import Server, ServerConfig, run_directory
from smmf_core.config.addresses import client_hosts, is_loopback
from smmf_core.config.load import Sources
from smmf_core.controller import process
from smmf_core.controller.listeners import Listeners, Ports, bind
from smmf_core.controller.log_files import CONTROLLER
from smmf_core.controller.run_dir import RunDir
from smmf_core.controller.shell import ControllerShell
from smmf_core.controller.sources import Found
from smmf_core.controller.words import Words
from smmf_core.errors import ConfigError, ControlError
from smmf_core.lifecycle import FAILED, Child
from smmf_core.store.first_look import SQLITE, look, read
from smmf_core.store.location import lane_key, registry_url, state_directory
from smmf_core.store.records import Stored, StoreError
from smmf_core.store.writer import StoreWriter

if TYPE_CHECKING:
    import socket

ADMIN_DELAY_S = 1.0  # importing the admin API costs a core 0.2 s that a loading Worker can use
TICK_S = 1.0
STORE_WAIT_S = 5.0  # a database that does not answer must not keep a server from being ready
CAN_ANSWER = ("ready", "unhealthy", "registered")  # the last one after a load
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Observer(Protocol):
    """Whoever shows the user what happens."""

    def changed(self, shell: ControllerShell, child: Child, former: str) -> None: ...
    def ticked(self, shell: ControllerShell) -> None:
        """Once a second: loads have gone on a little, perhaps."""

    def ready(self, shell: ControllerShell) -> None:
        """Once, when nothing is on its way any more and a model can answer."""

    def failed(self, shell: ControllerShell) -> None:
        """Once, when nothing is on its way any more and no model can answer."""


def run(
    config: ServerConfig, found: Found, observer: Observer, sources: Sources | None = None
) -> int:
    """Until shut down; returns the exit status. `sources`: where `found` came from, for a reload.

    Raises ConfigError or ControlError when it cannot start.
    """
    hears_terminal = process.has_terminal()
    asked: list[int] = []  # signals that came before the loop runs
    for number in _SIGNALS:
        signal.signal(number, lambda number, _: asked.append(number))
    process.become_subreaper()
    server = config.server
    tls.check(config)
    run_dir = RunDir(run_directory(server))
    run_dir.lock(server.name)
    logs.tell_children(config.log)
    logs.set_up_file(run_dir.logs / CONTROLLER, config.log)
    admin = bind(server.admin_host, server.admin_port)
    server.admin_port = admin.getsockname()[1]
    ports = _ports(server)
    url = registry_url(config)
    store = StoreWriter(url, server.name, config.log.retention_days)
    models = [model for _, model in found]
    shell = ControllerShell(config, models, run_dir, ports, store)
    shell.sources = sources
    shell.raws.update({model.model.name: raw for raw, model in found})
    shell.core.is_complete = not has_past(url)
    words = Words(state_directory(server.name))
    words.apply(shell.core.registry)
    shell.on_kept = lambda: words.keep(shell.core.registry)
    shell.on_change = lambda child, former: observer.changed(shell, child, former)
    shell.start(_first_look(config, url))
    server.port = ports.http.port or server.port

    import uvloop  # the children are on their way; now there is time for the rest

    life = _Life(shell, observer, hears_terminal)
    status: int = uvloop.run(_watch(shell, admin, life, asked))
    return status


def _ports(server: Server) -> Ports:
    """Raises ControlError: there is no key for the client library's."""
    http = Listeners(server.host, server.port)
    if not server.zmq_port:
        return Ports(http)
    from smmf_core.wire.curve import read_or_make  # ZeroMQ, which nothing else needs here

    public_key = read_or_make(lane_key(server), may_make=not server.zmq_key).public
    return Ports(http, Listeners(server.zmq_host or server.host, server.zmq_port), public_key)


def _first_look(config: ServerConfig, url: str) -> Stored | None:
    """The keys, before a Router listens. A database that takes its time is waited for only where
    the server may not start without a key. Raises ControlError."""
    server = config.server
    hosts = {**client_hosts(server), "admin_host": server.admin_host}
    is_here = all(map(is_loopback, hosts.values()))
    if is_here or server.api_keys:
        return look(url, server.name)
    try:
        return read(url, server.name)
    except StoreError as error:
        if server.no_auth and is_loopback(server.admin_host):
            return None
        raise ControlError(
            "other machines reach this server, and it is not known which API keys there are: the "
            f"registry's database cannot be read: {error}"
        ) from None


def has_past(url: str) -> bool:
    """Whether the registry's database may hold something: only then its content is waited for."""
    return not url.startswith(SQLITE) or Path(url.removeprefix(SQLITE)).exists()


async def _watch(
    shell: ControllerShell, admin: socket.socket, life: _Life, asked: list[int]
) -> int:
    import asyncio

    loop = asyncio.get_running_loop()
    shell.run_on(loop)
    if not shell.core.is_complete:
        life.open_store()
        loop.call_later(STORE_WAIT_S, shell.core.complete)
        loop.call_later(STORE_WAIT_S, shell.access.too_late)
    for number in _SIGNALS:
        loop.add_signal_handler(number, life.on_signal, number)
    for earlier in asked[:1]:
        life.on_signal(earlier)
    loop.call_later(ADMIN_DELAY_S, life.has_time)
    serving = asyncio.create_task(_serve_admin(shell, admin, life))
    while not life.ended.is_set():
        shell.tick()
        life.ticked()
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

    def __init__(self, shell: ControllerShell, observer: Observer, hears_terminal: bool) -> None:
        import asyncio

        self.status = 0
        self.ended = asyncio.Event()
        self.may_serve_admin = asyncio.Event()
        self._shell = shell
        self._observer = observer
        self._hears_terminal = hears_terminal
        self._is_announced = False
        self._is_storing = False
        shell.on_settled = self._on_settled

    def has_time(self) -> None:
        """The children have had theirs: now the admin API, and the store if it is not open."""
        self.may_serve_admin.set()
        self.open_store()

    def ticked(self) -> None:
        self._observer.ticked(self._shell)

    def open_store(self) -> None:
        if not self._is_storing:
            self._is_storing = True
            self._shell.open_store()

    def on_signal(self, number: int) -> None:
        """The first asks, the second insists; a hang-up asks only if a terminal can hang up."""
        if number == signal.SIGHUP and not self._hears_terminal:
            self._reload()
        else:
            self._shell.shut_down(force=self._shell.core.is_stopping)

    def _reload(self) -> None:
        try:
            result = self._shell.reload()
        except (ConfigError, ControlError) as error:
            self._shell.note("server", "reload", f"nothing has changed: {error}")
            return
        changed = [*result.added, *result.changed, *result.removed]
        self._shell.note("server", "reload", f"changed: {', '.join(changed) or 'nothing'}")

    def _on_settled(self) -> None:
        core = self._shell.core
        if not self._is_announced and core.is_settled and not core.is_stopping:
            self._is_announced = True
            self.has_time()
            if any(core.status_of(model).state in CAN_ANSWER for model in core.registry):
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
