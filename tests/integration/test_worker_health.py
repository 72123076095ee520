"""A Worker's process as its Controller hears it: heartbeats, phases, probes, its live state."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from smmf_core import control_messages as cm
from smmf_core import messages as m
from smmf_core.config import Model, ModelConfig
from smmf_core.wire.control import Channel, ControlServer

WAIT_S = 30.0
DEMO = str(Path(__file__).parents[2] / "configs" / "demo")


class Controller:
    """A Controller's end of the control socket, and the Worker that it has started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = ControlServer(folder)
        self.channel: Channel | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.heard: list[Any] = []

    def start(self, **engine: Any) -> None:
        backend = engine.pop("backend", "echo")
        model = Model(name="m", backend=backend, path=DEMO, task=engine.pop("task", "generate"))
        self.config = ModelConfig(model=model, engine=engine)
        command = [sys.executable, "-m", "smmf_core.worker.main", "--run-dir", str(self.folder)]
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--id", "3", "--incarnation", "2"], stdout=log, stderr=log
            )
        self.welcome()

    def welcome(self) -> None:
        self.until(lambda: self.channel is not None)
        assert self.channel is not None
        self.until(lambda: any(isinstance(message, cm.Hello) for message in self.heard))
        spec = msgspec.msgpack.encode(self.config)
        self.channel.send(cm.Welcome(m.PROTOCOL, spec, grace_s=60.0))

    def turn(self) -> None:
        if self.channel is None:
            self.channel = next(iter(self.server.accept()), None)
        if self.channel is not None:
            self.heard += [message for message, _ in self.channel.receive()]

    def until(self, condition: Callable[[], Any]) -> Any:
        end = time.monotonic() + WAIT_S
        while not (found := condition()):
            assert time.monotonic() < end, (self.heard[-5:], self.log())
            time.sleep(0.005)
            self.turn()
        return found

    def of(self, kind: type) -> list[Any]:
        return [message for message in self.heard if isinstance(message, kind)]

    def ask(self, message: m.Message, kind: type) -> Any:
        assert self.channel is not None
        self.channel.send(message)
        return self.until(lambda: [a for a in self.of(kind) if a.serial == message.serial])[0]

    def ready(self) -> cm.WorkerReport:
        return self.until(lambda: [r for r in self.of(cm.WorkerReport) if r.state == "ready"])[0]

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def close(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
        if self.channel is not None:
            self.channel.close()
        self.server.close()


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[Controller]:
    one = Controller(tmp_path)
    yield one
    one.close()


def beats(controller: Controller) -> int:
    return len(controller.of(cm.Heartbeat))


def test_heartbeats_stop_with_the_process_alone(controller: Controller) -> None:
    controller.start()
    controller.ready()
    controller.until(lambda: beats(controller) >= 2)
    assert controller.process is not None
    controller.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, controller.process.pid, os.WSTOPPED | os.WNOWAIT)
    controller.turn()
    heard = beats(controller)
    time.sleep(2.5)
    controller.turn()
    assert beats(controller) == heard
    controller.process.send_signal(signal.SIGCONT)
    controller.until(lambda: beats(controller) > heard)


def test_heartbeats_go_on_while_python_is_busy(controller: Controller) -> None:
    """A step that never ends is no lost heartbeat: the step counter tells of that."""
    controller.start(fail="hang:1")
    controller.ready()
    assert controller.channel is not None
    controller.channel.send(cm.Probe(1))
    reports = len(controller.of(cm.WorkerReport))
    heard = beats(controller)
    controller.until(lambda: beats(controller) >= heard + 3)
    assert len(controller.of(cm.WorkerReport)) <= reports + 1
    assert controller.of(cm.Probed) == []


def test_heartbeats_follow_to_a_new_controller(controller: Controller) -> None:
    controller.start()
    controller.ready()
    assert controller.channel is not None
    controller.channel.close()
    controller.channel = None
    controller.server.close()
    controller.server = ControlServer(controller.folder)
    controller.heard.clear()
    controller.welcome()
    controller.until(lambda: beats(controller) >= 2)
    assert isinstance(controller.heard[0], cm.Hello)


def test_a_real_engine_warms_up_before_it_is_ready(controller: Controller) -> None:
    controller.start(backend="reference")
    ready = controller.ready()
    phases = list(dict.fromkeys(report.phase for report in controller.of(cm.WorkerReport)))
    assert phases == ["load", "warm-up", "ready"]
    assert ready.steps >= 2, "a prompt and a token"
    assert (ready.finished, ready.faults, ready.first_token_s) == (0, 0, [])
    assert ready.device == "cpu"


def test_an_engine_that_opts_out_is_ready_at_once(controller: Controller) -> None:
    controller.start(fail="crash:1")
    assert controller.ready().steps == 0
    assert "warm-up" not in {report.phase for report in controller.of(cm.WorkerReport)}


@pytest.mark.parametrize("engine", [{"backend": "reference"}, {}, {"task": "embed"}])
def test_a_probe_is_answered(controller: Controller, engine: dict[str, Any]) -> None:
    controller.start(**engine)
    controller.ready()
    for serial in (5, 6):
        probed = controller.ask(cm.Probe(serial), cm.Probed)
        assert (probed.ok, probed.reason) == (True, "")
        assert 0 < probed.seconds < WAIT_S


def test_adapters_wished_while_loading_are_there_when_it_is_ready(controller: Controller) -> None:
    """What it cannot load is told before, too: echo takes none."""
    controller.start(load_s=3.0)
    assert controller.channel is not None
    controller.channel.send(cm.Adapters({"a": "/nowhere"}, 4))
    controller.ready()
    (told, *_), (*_, before) = (
        [r for r in controller.of(cm.WorkerReport) if r.state == "ready"],
        [r for r in controller.of(cm.WorkerReport) if r.state == "loading"],
    )
    assert told.adapter_serial == before.adapter_serial == 4
    assert "does not take adapters" in told.adapter_error


def test_a_probe_tells_why_it_failed(controller: Controller) -> None:
    controller.start(fail="error:1", load_s=3.0)
    early = controller.ask(cm.Probe(1), cm.Probed)
    assert (early.ok, early.reason) == (False, "it is in the phase 'load'")
    controller.ready()
    probed = controller.ask(cm.Probe(2), cm.Probed)
    assert not probed.ok
    assert "told to fail" in probed.reason


def test_dimensions_of_an_embedding_model_are_told(controller: Controller) -> None:
    controller.start(task="embed", dimensions=24)
    assert controller.ready().dimensions == 24


def test_the_live_state(controller: Controller) -> None:
    controller.start(step_ms=50)
    controller.ready()
    controller.ask(cm.Probe(1), cm.Probed)
    facts = controller.ask(cm.Inspect(9), cm.Inspected).facts
    assert controller.process is not None
    assert (facts["state"], facts["phase"], facts["pid"]) == (
        "ready",
        "ready",
        controller.process.pid,
    )
    assert facts["slots"] == {"running": 0, "waiting": 0, "open": 0}
    assert (facts["incarnation"], facts["steps"]) == (2, 2)
    assert facts["routers"] == facts["requests"] == facts["last_errors"] == []
    assert any(thread["name"] == "heartbeat" for thread in facts["native_threads"])
    assert any("control.py" in line for line in facts["threads"][0]["stack"])
    assert msgspec.json.encode(facts)


def test_stacks_of_a_worker_that_hangs_go_to_its_log(controller: Controller) -> None:
    controller.start(fail="hang:1")
    controller.ready()
    assert controller.channel is not None
    assert controller.process is not None
    controller.channel.send(cm.Probe(1))

    def is_told() -> bool:
        assert controller.process is not None
        controller.process.send_signal(signal.SIGUSR1)
        return "engine.py" in controller.log() and "_inject" in controller.log()

    controller.until(is_told)
    assert controller.process.poll() is None


def test_a_load_that_fails_says_why_and_ends(controller: Controller) -> None:
    controller.start(fail="load")
    failed = controller.until(lambda: [r for r in controller.of(cm.WorkerReport) if r.reason])[0]
    assert (failed.state, failed.phase) == ("failed", "load")
    assert failed.reason == "the echo engine was told to fail its load"
    assert controller.process is not None
    assert controller.process.wait(WAIT_S) == 1
