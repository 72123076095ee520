"""The Worker's own requests on real cores, and what it tells of itself."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smmf_core import control_messages as cm
from smmf_core import messages as m
from smmf_core.config import Model, ModelConfig
from smmf_core.engines.base import EmbedSpec, EngineDead, Output, Text
from smmf_core.engines.echo.embed import EchoEmbedEngine
from smmf_core.engines.echo.engine import EchoEngine, EchoTokenizer
from smmf_core.native._batcher import Batcher
from smmf_core.worker import embed_loop, step_loop
from smmf_core.worker.contract import Tally
from smmf_core.worker.control import WorkerControl
from smmf_core.worker.core import WorkerCore
from smmf_core.worker.embed_batcher import EmbedBatcher
from smmf_core.worker.embed_core import EmbedCore
from smmf_core.worker.probe import Prober, WarmUpFailed
from smmf_core.worker.serve import warm_up
from smmf_core.worker.watch import Watch, native_threads, python_threads

ROUTER = (0, 1)
LATER = 1e9  # whatever was to wait until then


class Rig:
    """A core with its engine and its own requests."""

    def __init__(self, task: str = "generate", **settings: Any) -> None:
        config = ModelConfig(model=Model(name="e", backend="echo", task=task), engine=settings)
        self.engine: Any
        self.core: Any
        if task == "generate":
            self.engine = EchoEngine(config)
            self.core = WorkerCore(self.engine.spec, Batcher(8, 8192, 0.0, False))
            self._turn = step_loop.turn
        else:
            self.engine = EchoEmbedEngine(config, EchoTokenizer())
            batcher = EmbedBatcher(8, 0, None, 16)
            self.core = EmbedCore(self.engine.spec, self.engine.tokenize, batcher)
            self._turn = embed_loop.turn  # type: ignore[assignment]
        self.core.add_router(ROUTER)
        self.prober = Prober(self.core, task)
        self.control = WorkerControl(Path("/nowhere"), 0, 1)

    def turn(self, now: float = LATER) -> float:
        return self._turn(self.engine, self.core, self.control, now)

    def probe(self, serial: int = 7) -> cm.Probed:
        self.prober.begin(serial, 0.0)
        for _ in range(10):
            self.turn()
            for probed in self.prober.take(2.5):
                return probed
        raise AssertionError("no answer")


@pytest.mark.parametrize("task", ["generate", "embed", "rerank"])
def test_a_probe_goes_through_core_and_engine(task: str) -> None:
    rig = Rig(task)
    assert rig.probe() == cm.Probed(7, True, 2.5)
    assert rig.core.tokens > 0
    assert (len(rig.core), rig.core.running, rig.core.waiting) == (0, 0, 0)


@pytest.mark.parametrize("task", ["generate", "embed"])
def test_a_probe_is_no_clients_request(task: str) -> None:
    rig = Rig(task)
    rig.probe()
    assert (rig.core.tally.finished, rig.core.tally.begun) == (0, [])
    assert rig.core.out[ROUTER] == []


def test_a_probe_that_fails_tells_why_and_is_no_fault() -> None:
    rig = Rig(fail="error:1")
    probed = rig.probe()
    assert (probed.ok, probed.serial) == (False, 7)
    assert "told to fail" in probed.reason
    assert rig.core.tally.faults == 0
    assert [request_id for request_id, _ in rig.core.tally.failed] == ["probe"]


def test_probes_run_beside_others_and_each_is_answered() -> None:
    rig = Rig(tokens=5)
    submit = m.Submit(1, 0, "r", "e", True, 1, None, ["hi"], m.Sampling())
    rig.core.on_submit(ROUTER, submit, 0.0)
    rig.prober.begin(1, 0.0)
    rig.prober.begin(2, 1.0)
    rig.prober.begin(2, 1.5)  # it is open
    for _ in range(6):
        rig.turn()
    answered = [(probed.serial, probed.seconds) for probed in rig.prober.take(3.0)]
    assert answered == [(1, 3.0), (2, 2.0)]
    assert [record[0] for record in rig.core.out[ROUTER]][-1] == m.FINISH
    assert rig.prober.take(4.0) == []


def test_a_tiny_context_has_room_for_it() -> None:
    assert Rig(max_model_len=4).probe().ok


def test_the_warm_up_fails_with_the_engines_reason() -> None:
    rig = Rig(fail="error:2")
    with pytest.raises(WarmUpFailed, match="warm-up request: the echo engine") as raised:
        warm_up(rig.prober, rig.control, rig.turn)
    assert isinstance(raised.value.__cause__, RuntimeError)
    assert rig.control.phase == "warm-up"


def test_the_warm_up_of_what_answers_returns() -> None:
    rig = Rig("embed")
    warm_up(rig.prober, rig.control, rig.turn)
    assert rig.control.steps == 1


def test_an_engine_that_computes_no_numbers_fails_its_warm_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig("embed")

    def encode(texts: list[Text]) -> Any:
        return np.full((len(texts), 4), np.nan, np.float32)

    monkeypatch.setattr(rig.engine, "encode", encode)
    with pytest.raises(WarmUpFailed, match="not a number"):
        warm_up(rig.prober, rig.control, rig.turn)


def test_an_engine_that_dies_in_its_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()

    def step() -> list[Output]:
        raise EngineDead("the device is gone")

    monkeypatch.setattr(rig.engine, "step", step)
    with pytest.raises(EngineDead, match="device"):
        warm_up(rig.prober, rig.control, rig.turn)


def test_a_worker_that_is_to_end_does_not_wait_for_its_warm_up() -> None:
    rig = Rig(prefill_ms=1_000_000)
    rig.control.drain(0.0)
    warm_up(rig.prober, rig.control, rig.turn)
    assert len(rig.core) == 1


def test_dimensions_of_a_reranker_are_none() -> None:
    assert Rig("rerank").core.dimensions == 0
    assert Rig("embed", dimensions=8).core.dimensions == 8
    assert Rig().core.dimensions == 0
    assert EmbedSpec(16, 256).warms_up


def test_the_watch_keeps_the_newest_first_tokens_once() -> None:
    watch, tally = Watch(), Tally()
    tally.begun += [float(n) for n in range(100)]
    watch.take(tally, 100.0)
    assert watch.first_token_s() == [100.0 - n for n in range(36, 100)]
    assert watch.first_token_s() == tally.begun == []


def test_failures_are_remembered_and_logged_with_their_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watch, tally = Watch(), Tally()
    submit = m.Embed(1, 0, "req-9", "m", ["x"])
    for number in range(30):
        tally.fail(ROUTER, submit, ValueError(f"no {number}"))
    with caplog.at_level(logging.ERROR, "smmf.worker"):
        watch.take(tally, 0.0)
    assert [failure["error"] for failure in watch.failures] == [f"no {n}" for n in range(10, 30)]
    assert {failure["request_id"] for failure in watch.failures} == {"req-9"}
    assert len(caplog.records) == tally.faults == 30
    assert caplog.records[0].request_id == "req-9"  # type: ignore[attr-defined]
    assert "no 0" in caplog.text
    assert tally.failed == []


def test_threads_are_told_with_their_stacks() -> None:
    waits, go = threading.Event(), threading.Event()

    def run() -> None:
        waits.set()
        go.wait()

    thread = threading.Thread(target=run, name="sleeper")
    thread.start()
    waits.wait()
    stacks = {entry["name"]: entry["stack"] for entry in python_threads()}
    natives = native_threads()
    go.set()
    thread.join()
    assert any(line.endswith(" run") and __file__ in line for line in stacks["sleeper"])
    assert stacks["MainThread"][-1].endswith(" python_threads")
    assert len(natives) >= 2
    assert all(entry["state"] in "RSDTtIZ" for entry in natives)
