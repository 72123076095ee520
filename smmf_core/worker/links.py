"""The Worker's connections to its Routers: requests in, records out.

Owns one ring writer, one ZeroMQ socket and one pidfd per Router; must not decide anything.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from smmf_core.control_messages import Attach
from smmf_core.errors import ApiError
from smmf_core.messages import Cancel, Detokenize, Ready, Tokenize
from smmf_core.native._ring import drain_eventfd, wait
from smmf_core.wire.requests import WorkerContext, WorkerSocket, worker_identity
from smmf_core.wire.token_stream import TokenWriter
from smmf_core.worker import tokens
from smmf_core.worker.contract import Core, RouterKey


@dataclass(slots=True)
class Link:
    attach: Attach
    writer: TokenWriter
    socket: WorkerSocket
    pidfd: int


class Links:
    """All Routers of this Worker. The loop calls `receive`, then `flush` after each step."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._context = WorkerContext()
        self._links: dict[RouterKey, Link] = {}
        self._steps = 0  # as the Routers know

    @property
    def attached(self) -> list[tuple[int, int, int, int]]:
        links = self._links.values()
        return [(a.worker, a.incarnation, a.router, a.epoch) for a in (k.attach for k in links)]

    def attach(self, attach: Attach, fds: list[int]) -> None:
        """Map the ring, connect, and say Ready. Takes over [memfd, data, space, pidfd]."""
        memfd, data_fd, space_fd, pidfd = fds
        key = (attach.router, attach.epoch)
        writer = TokenWriter(memfd, data_fd, space_fd)
        os.close(memfd)  # the mapping keeps the memory
        identity = worker_identity(attach.worker, attach.incarnation)
        socket = self._context.connect(attach.endpoint, identity)
        self._links[key] = Link(attach, writer, socket, pidfd)
        self._core.add_router(key)
        context_length = self._core.spec.context_length
        socket.send(
            [Ready(attach.worker, attach.incarnation, attach.epoch, attach.slots, context_length)]
        )

    def detach(self, key: RouterKey) -> None:
        link = self._links.pop(key, None)
        if link is None:
            return
        self._core.on_router_gone(key)
        link.socket.close()
        link.writer.close()
        for fd in (link.writer.data_fd, link.writer.space_fd, link.pidfd):
            os.close(fd)

    def receive(self, now: float) -> None:
        """Hand everything that has arrived to the core."""
        core, takes = self._core, self._core.takes
        for key, link in self._links.items():
            for message in link.socket.receive():
                if type(message) is takes:
                    core.on_submit(key, message, now)
                elif isinstance(message, Cancel):
                    core.on_cancel(key, message.key, message.attempt)
                elif isinstance(message, Tokenize | Detokenize):
                    core.out[key] += tokens.answer(message, core.spec, core.tally, key)
                else:
                    error = ApiError("unsupported_value", "The model has another task.", "model")
                    core.out[key].append(core.tally.fail(key, message, error))

    def flush(self, steps: int) -> None:
        """Publish the records of this turn: per Router one tail store, at most one doorbell."""
        out = self._core.out
        for key, link in self._links.items():
            writer, records = link.writer, out[key]
            if records:
                failed = writer.write(records)
                records.clear()
                for request in failed:
                    self._core.drop(key, request)
            elif writer.is_blocked:
                writer.retry()
            if steps != self._steps:  # steps that tell nothing are progress, too
                writer.step(steps)
        self._steps = steps

    def sleep(self, control_fd: int, timeout_s: float | None) -> None:
        """Until a Router or the Controller has something to say, or room in its full ring."""
        space_fds = self.space_fds
        fds = [*self.request_fds, *space_fds, *self.pidfds]
        if control_fd >= 0:
            fds.append(control_fd)
        if not wait(fds, timeout_s):
            return
        for fd in space_fds:
            drain_eventfd(fd)
        self.remove_dead()

    def remove_dead(self) -> None:
        """Forget the Routers whose pidfd says that they died."""
        for key, link in list(self._links.items()):
            if wait([link.pidfd], 0):
                self.detach(key)

    def describe(self) -> list[dict[str, object]]:
        """The Routers and how full their rings are, for an operator."""
        return [
            {
                "router": router,
                "epoch": epoch,
                "slots": link.attach.slots,
                "ring_used_bytes": link.writer.used_bytes,
                "ring_free_bytes": link.writer.free_bytes,
                "is_blocked": link.writer.is_blocked,
            }
            for (router, epoch), link in self._links.items()
        ]

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits for room in a ring."""
        return not any(link.writer.is_blocked for link in self._links.values())

    @property
    def request_fds(self) -> list[int]:
        return [link.socket.fd for link in self._links.values()]

    @property
    def space_fds(self) -> list[int]:
        """Eventfds of full rings that tell when there is room again."""
        return [k.writer.space_fd for k in self._links.values() if k.writer.is_blocked]

    @property
    def pidfds(self) -> list[int]:
        return [link.pidfd for link in self._links.values()]

    def close(self) -> None:
        for key in list(self._links):
            self.detach(key)
        self._context.close()
