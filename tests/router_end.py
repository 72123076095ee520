"""What a Router has of one Worker, for the test of a Worker's loop to look at."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from smmf_core import control_messages as cm
from smmf_core import messages as m
from smmf_core.native import _ring
from smmf_core.native._ring import RingReader
from smmf_core.wire.requests import RouterSocket, worker_identity
from smmf_core.worker.links import Links

WAIT_S = 20.0


class RouterEnd:
    """A ROUTER socket, a ring, and a process that stands for the Router's."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.endpoint = f"ipc://{folder}/router.sock"
        self.socket = RouterSocket(self.endpoint)
        self.memfd = _ring.create(1 << 16, 16)
        self.data_fd, self.space_fd = (os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2))
        self.reader = RingReader(self.memfd, self.data_fd, self.space_fd)
        command = [sys.executable, "-c", "input()"]  # stands for the Router's process
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE)
        self.records: list[m.Record] = []

    def attach(self, links: Links) -> None:
        fds = [os.dup(fd) for fd in (self.memfd, self.data_fd, self.space_fd)]
        fds.append(os.pidfd_open(self.process.pid))
        links.attach(cm.Attach(0, 1, 0, 1, self.endpoint, 16), fds)

    def send(self, *messages: m.ToWorker) -> None:
        assert self.socket.send(worker_identity(0, 1), list(messages))

    def wait_ready(self) -> m.Ready:
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            for _, messages in self.socket.receive():
                return messages[0]
            time.sleep(0.002)
        raise AssertionError("no Ready")

    def wait(self, key: int, *kinds: int) -> list[m.Record]:
        """All records of `key`, once one of these kinds is there."""
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            self.records += self.reader.drain()
            own = [record for record in self.records if record[1] == key]
            if any(record[0] in kinds for record in own):
                return own
            if self.reader.arm():
                _ring.wait([self.data_fd], 0.5)
                _ring.drain_eventfd(self.data_fd)
        raise AssertionError(f"no record of {kinds} for {key}: {self.records}")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self.socket.close()
        self.reader.close()
        for fd in (self.memfd, self.data_fd, self.space_fd):
            os.close(fd)
