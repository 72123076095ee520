"""The loop of embedding engines against a Router's real ends: a ROUTER socket, a ring, a pidfd."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from router_end import WAIT_S, RouterEnd

from smmf_core import messages as m
from smmf_core.config import Model, ModelConfig
from smmf_core.engines.base import EngineDead, Text
from smmf_core.engines.echo.embed import EchoEmbedEngine, Vector
from smmf_core.engines.echo.engine import EchoTokenizer
from smmf_core.worker import embed_loop
from smmf_core.worker.control import WorkerControl
from smmf_core.worker.embed_batcher import EmbedBatcher
from smmf_core.worker.embed_core import EmbedCore
from smmf_core.worker.links import Links
from smmf_core.worker.probe import Prober


class Engine(EchoEmbedEngine):
    """Echo's, which waits in a step while it is held, and dies when it is told to."""

    def __init__(self) -> None:
        config = ModelConfig(model=Model(name="e", backend="echo", task="embed"))
        super().__init__(config, EchoTokenizer())
        self.free = threading.Event()
        self.free.set()
        self.is_dead = False
        self.steps: list[int] = []

    def encode(self, texts: list[Text]) -> Vector:
        self.steps.append(len(texts))
        assert self.free.wait(WAIT_S)
        if self.is_dead:
            raise EngineDead("told to die")
        return super().encode(texts)


class WorkerEnd:
    """The loop in a thread, without a Controller."""

    def __init__(self, folder: Path, router: RouterEnd) -> None:
        self.engine = Engine()
        self.core = EmbedCore(self.engine.spec, self.engine.tokenize, EmbedBatcher(8, 0, None, 16))
        self.links = Links(self.core)
        self.control = WorkerControl(folder, 0, 1)
        self.control.loaded(self.core, self.links, Prober(self.core, "embed"))
        self.died = False
        router.attach(self.links)
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        try:
            embed_loop.run(self.engine, self.core, self.links, self.control)
        except EngineDead:
            self.died = True

    def stop(self) -> None:
        self.engine.free.set()
        self.control.drain(time.monotonic())
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()
        self.links.close()


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[tuple[RouterEnd, WorkerEnd]]:
    router = RouterEnd(tmp_path)
    worker = WorkerEnd(tmp_path, router)
    yield router, worker
    worker.stop()
    router.close()


def embed(key: int, *inputs: str) -> m.Embed:
    return m.Embed(key, 0, "r", "e", list(inputs))


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_requests_are_answered(ends: tuple[RouterEnd, WorkerEnd]) -> None:
    router, _ = ends
    ready = router.wait_ready()
    assert ready.context_length == 8192
    router.send(*[embed(key, "a text", "another") for key in range(1, 6)])
    for key in range(1, 6):
        records = router.wait(key, m.FINISH, m.FAIL)
        assert [record[0] for record in records] == [m.ADMIT, m.RESULT, m.FINISH]
        vectors = msgspec.msgpack.decode(records[1][5], type=m.Vectors)
        assert (len(vectors.data), vectors.dimensions) == (2 * 32 * 4, 32)


def test_what_comes_while_a_step_runs_shares_the_next(ends: tuple[RouterEnd, WorkerEnd]) -> None:
    router, worker = ends
    router.wait_ready()
    worker.engine.free.clear()
    router.send(embed(1, "first"))
    until(lambda: worker.engine.steps)
    router.send(*[embed(key, "later") for key in range(2, 8)])
    worker.engine.free.set()
    for key in range(1, 8):
        assert router.wait(key, m.FINISH, m.FAIL)[-1][0] == m.FINISH
    assert sum(worker.engine.steps) == 7
    assert len(worker.engine.steps) < 5  # they may come in more than one frame


def test_a_cancel_is_heard_between_steps(ends: tuple[RouterEnd, WorkerEnd]) -> None:
    router, worker = ends
    router.wait_ready()
    worker.engine.free.clear()
    router.send(embed(1, *["x"] * 1000))
    until(lambda: worker.engine.steps)
    router.send(m.Cancel(1, 0), embed(2, "y"))
    time.sleep(0.5)  # until they are in the Worker's queue
    worker.engine.free.set()
    router.wait(2, m.FINISH)
    assert len(worker.engine.steps) < 10  # of 126, had it not been heard
    assert len(worker.core) == worker.core.waiting == 0


def test_a_dead_router_ends_its_requests(ends: tuple[RouterEnd, WorkerEnd]) -> None:
    router, worker = ends
    router.wait_ready()
    worker.engine.free.clear()
    router.send(embed(1, *["x"] * 1000))
    until(lambda: worker.engine.steps)
    router.process.kill()
    router.process.wait()
    worker.engine.free.set()
    until(lambda: not len(worker.core) and not worker.links.attached)


def test_an_answer_larger_than_the_ring(ends: tuple[RouterEnd, WorkerEnd]) -> None:
    router, _ = ends
    router.wait_ready()
    router.send(embed(1, *["x"] * 2000))  # 250 KiB through a ring of 64
    records = router.wait(1, m.FINISH, m.FAIL)
    assert len(records[1][5]) > 2000 * 32 * 4


def test_a_dead_engine_ends_the_worker_after_the_last_word(
    ends: tuple[RouterEnd, WorkerEnd],
) -> None:
    router, worker = ends
    router.wait_ready()
    worker.engine.is_dead = True
    router.send(embed(1, "x"), embed(2, "y"))
    for key in (1, 2):
        assert router.wait(key, m.FAIL, m.FINISH)[-1][0] == m.FAIL
    worker.thread.join(WAIT_S)
    assert worker.died


def test_a_request_of_another_task_is_refused(ends: tuple[RouterEnd, WorkerEnd]) -> None:
    router, _ = ends
    router.wait_ready()
    router.send(m.Submit(1, 0, "r", "e", True, 1, None, ["hello"], m.Sampling()))
    (failure,) = router.wait(1, m.FAIL)
    assert b"unsupported_value" in failure[5]
