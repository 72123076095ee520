"""Both Worker loops against a Router's real ends: a ROUTER socket, a ring, a pidfd."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from router_end import WAIT_S, RouterEnd

from smmf_core import control_messages as cm
from smmf_core import messages as m
from smmf_core.config import Model, ModelConfig
from smmf_core.engines.base import Output, Sequence
from smmf_core.engines.echo.engine import EchoEngine
from smmf_core.native._batcher import Batcher
from smmf_core.worker import step_loop
from smmf_core.worker.control import WorkerControl
from smmf_core.worker.core import WorkerCore
from smmf_core.worker.links import Links
from smmf_core.worker.probe import Prober
from smmf_core.worker.stream_loop import StreamLoop


class StreamingEcho:
    """A self-scheduling engine: echo's words, one task per sequence."""

    def __init__(self, config: ModelConfig) -> None:
        self.spec = EchoEngine(config).spec
        self.closed: list[int] = []

    async def load(self, progress: Callable[[float], None]) -> None: ...

    async def generate(self, sequence: Sequence) -> AsyncIterator[Output]:
        settings = sequence.submit.echo or {}
        try:
            for number in range(settings.get("tokens", 3)):
                await asyncio.sleep(settings.get("step_ms", 0) / 1000)
                if settings.get("fail") == f"error:{number + 1}":
                    raise RuntimeError("told to fail")
                ended = number + 1 == settings.get("tokens", 3)
                yield Output(sequence, number, ended=ended)
        finally:
            self.closed.append(sequence.id)

    async def close(self) -> None: ...


class WorkerEnd:
    """A Worker's loop in a thread, without a Controller."""

    def __init__(self, folder: Path, kind: str, router: RouterEnd) -> None:
        config = ModelConfig(model=Model(name="echo", backend="echo"))
        self.engine: Any = EchoEngine(config) if kind == "step" else StreamingEcho(config)
        self.core = WorkerCore(self.engine.spec, Batcher(8, 8192, 0.0, False))
        self.links = Links(self.core)
        self.control = WorkerControl(folder, 0, 1)
        self.control.loaded(self.core, self.links, Prober(self.core, "generate"))
        router.attach(self.links)
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        if isinstance(self.engine, EchoEngine):
            step_loop.run(self.engine, self.core, self.links, self.control)
        else:
            asyncio.run(StreamLoop(self.engine, self.core, self.links, self.control).run())

    def stop(self) -> None:
        self.control.drain(time.monotonic())
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()
        self.links.close()


@pytest.fixture(params=["step", "stream"])
def ends(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[RouterEnd, WorkerEnd]]:
    router = RouterEnd(tmp_path)
    worker = WorkerEnd(tmp_path, request.param, router)
    yield router, worker
    worker.stop()
    router.close()


def submit(key: int, **fields: Any) -> m.Submit:
    fields.setdefault("sampling", m.Sampling())
    return m.Submit(
        key=key, attempt=0, request_id="r", model="echo", stream=True, n=1, messages=None,
        prompts=["hello"], **fields,
    )  # fmt: skip


def text(records: list[m.Record]) -> str:
    return b"".join(r[5][4 * r[4] :] for r in records if r[0] == m.TOKENS).decode()


def test_ready_then_requests_are_answered(ends: tuple[RouterEnd, WorkerEnd]) -> None:
    router, _ = ends
    ready = router.wait_ready()
    assert (ready.worker, ready.incarnation, ready.epoch, ready.slots) == (0, 1, 1, 16)
    router.send(*[submit(key, echo={"tokens": 3}) for key in range(1, 6)])
    for key in range(1, 6):
        records = router.wait(key, m.FINISH, m.FAIL)
        kinds = [record[0] for record in records]
        assert kinds == [m.ADMIT, m.TOKENS, m.TOKENS, m.TOKENS, m.CHOICE_END, m.FINISH]
        assert text(records) == " the quick brown"


def test_a_request_of_another_task_is_refused(ends: tuple[RouterEnd, WorkerEnd]) -> None:
    router, _ = ends
    router.wait_ready()
    router.send(m.Embed(1, 0, "r", "echo", ["hello"]), submit(2, echo={"tokens": 2}))
    (failure,) = router.wait(1, m.FAIL)
    assert b"unsupported_value" in failure[5]
    assert text(router.wait(2, m.FINISH, m.FAIL)) == " the quick"


def test_cancel_stops_a_request_and_later_ones_run(ends: tuple[RouterEnd, WorkerEnd]) -> None:
    router, worker = ends
    router.wait_ready()
    router.send(submit(1, echo={"tokens": 100_000, "step_ms": 1}))
    router.wait(1, m.TOKENS)
    router.send(m.Cancel(1, 0), submit(2, echo={"tokens": 2}))
    router.wait(2, m.FINISH)
    until = time.monotonic() + WAIT_S
    while len(worker.core) and time.monotonic() < until:
        time.sleep(0.005)
    assert len(worker.core) == 0
    assert worker.core.batcher.running == 0
    if isinstance(worker.engine, StreamingEcho):
        assert len(worker.engine.closed) == 2


def test_an_error_fails_one_request(ends: tuple[RouterEnd, WorkerEnd]) -> None:
    router, _ = ends
    router.wait_ready()
    router.send(submit(1, echo={"tokens": 5, "fail": "error:2"}), submit(2, echo={"tokens": 4}))
    assert router.wait(1, m.FAIL, m.FINISH)[-1][0] == m.FAIL
    assert text(router.wait(2, m.FINISH, m.FAIL)) == " the quick brown fox"


def test_a_dead_router_ends_its_requests(ends: tuple[RouterEnd, WorkerEnd]) -> None:
    router, worker = ends
    router.wait_ready()
    router.send(submit(1, echo={"tokens": 100_000, "step_ms": 1}))
    router.wait(1, m.TOKENS)
    router.process.kill()
    router.process.wait()
    until = time.monotonic() + WAIT_S
    while (len(worker.core) or worker.links.attached) and time.monotonic() < until:
        time.sleep(0.005)
    assert len(worker.core) == 0
    assert worker.links.attached == []


def test_a_stalled_router_stops_nobody(ends: tuple[RouterEnd, WorkerEnd]) -> None:
    router, _ = ends
    router.wait_ready()
    sampling = m.Sampling(max_tokens=5000)
    router.send(submit(1, echo={"tokens": 5000}, sampling=sampling))
    time.sleep(0.3)  # the ring of 64 KiB is long full by now
    records = router.wait(1, m.FINISH, m.FAIL)
    assert records[-1][0] == m.FINISH
    assert sum(record[4] for record in records if record[0] == m.TOKENS) == 5000


def test_a_worker_that_drains_writes_what_a_full_ring_has_kept(
    ends: tuple[RouterEnd, WorkerEnd],
) -> None:
    router, worker = ends
    router.wait_ready()
    sampling = m.Sampling(max_tokens=5000)
    router.send(submit(1, echo={"tokens": 5000}, sampling=sampling))
    until = time.monotonic() + WAIT_S
    while (not worker.core.tokens or len(worker.core)) and time.monotonic() < until:
        time.sleep(0.005)
    worker.control.drain(time.monotonic() + WAIT_S)
    time.sleep(0.3)  # several turns of its loop
    records = router.wait(1, m.FINISH, m.FAIL)
    assert records[-1][0] == m.FINISH
    assert sum(record[4] for record in records if record[0] == m.TOKENS) == 5000


@pytest.mark.parametrize("ends", ["stream"], indirect=True)
def test_a_router_that_gets_the_descriptors_of_another_is_watched(
    ends: tuple[RouterEnd, WorkerEnd], tmp_path: Path
) -> None:
    router, worker = ends
    router.wait_ready()
    successor = RouterEnd(tmp_path / "next")
    turn = worker.control.turn

    def replace(now: float) -> None:
        """As Detach and Attach in one turn do; the new pidfd has the old one's number."""
        worker.control.turn = turn  # type: ignore[method-assign]
        (number,) = worker.links.pidfds
        pidfd = os.pidfd_open(successor.process.pid)
        worker.links.detach((0, 1))
        os.dup2(pidfd, number, inheritable=False)
        os.close(pidfd)
        fds = [os.dup(fd) for fd in (successor.memfd, successor.data_fd, successor.space_fd)]
        attach = cm.Attach(0, 1, 0, 2, successor.endpoint, 16)
        worker.links.attach(attach, [*fds, number])

    worker.control.turn = replace  # type: ignore[method-assign]
    try:
        successor.wait_ready()
        successor.process.kill()
        until = time.monotonic() + WAIT_S
        while worker.links.attached and time.monotonic() < until:
            time.sleep(0.005)
        assert worker.links.attached == []
    finally:
        worker.stop()
        successor.close()
