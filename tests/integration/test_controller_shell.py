"""The Controller's shell on a real loop: connections that end at an awkward moment."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import msgspec
import pytest

from smmf_core.config import Model, ModelConfig, Server, ServerConfig
from smmf_core.control_messages import Drain, FromChild
from smmf_core.controller.listeners import Listeners, Ports
from smmf_core.controller.run_dir import RunDir
from smmf_core.controller.shell import ControllerShell
from smmf_core.wire.control import Channel


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s")  # a short name: a socket is in it


def test_a_child_that_dies_while_it_is_told_something_is_not_watched_on(folder: Path) -> None:
    asyncio.run(tell_the_dead(folder))


async def tell_the_dead(folder: Path) -> None:
    config = ServerConfig(Server(routers=1))
    models = [ModelConfig(Model("m", "echo"))]
    shell = ControllerShell(config, models, RunDir(folder), Ports(Listeners("127.0.0.1", 0)))
    loop = asyncio.get_running_loop()
    shell.run_on(loop)
    shell.core.plan({})
    worker = shell.core.table.slot(shell.core.registry.find("m"), 0)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel = Channel(ours, msgspec.msgpack.Decoder(FromChild))
    shell._connections.adopt(channel, worker)
    fd = channel.fd
    worker.connected = True

    theirs.close()
    shell.send(worker, Drain(0.0))
    assert channel.closed
    assert not worker.connected
    assert not loop.remove_reader(fd), "its number, reused by another socket, would wake the loop"
    assert not loop.remove_writer(fd)
    shell.close()
