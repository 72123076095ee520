"""What the core is told from outside: budgets, needs, free memory, what instances take."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from test_gpus import Driver

from smmf_core.config import Deployment, Memory, Model, ModelConfig, ServerConfig
from smmf_core.control_messages import ModelLoad, RouterReport
from smmf_core.controller.core import ControllerCore
from smmf_core.controller.page_cache import cached_bytes
from smmf_core.controller.watch import FILES_EVERY, FIRST_LOOK, INSTANCES_EVERY, Watch
from smmf_core.lifecycle import READY, STARTING, Child
from smmf_core.registry import LiveRegistry

GIB = 2**30
NOW = 50.0


class Effects:
    """Nothing is done."""

    def spawn(self, child: Child) -> int:
        return os.getpid()

    def kill(self, *_: Any) -> None: ...
    def welcome(self, *_: Any) -> None: ...
    def send(self, *_: Any) -> None: ...
    def attach(self, *_: Any) -> None: ...
    def publish(self) -> None: ...
    def record(self, *_: Any) -> None: ...
    def note(self, *_: Any) -> None: ...


class Rig:
    def __init__(self, config: ModelConfig, memory: Memory) -> None:
        self.memory = memory
        server = ServerConfig(memory=memory)
        registry = LiveRegistry()
        self.model = registry.add(config, 1)
        self.core = ControllerCore(server, registry, Effects())
        self.core.plan({})
        self.watch = Watch(server, None)

    def start(self) -> Child:
        self.watch.prepare(self.core)
        self.core.start(NOW)
        for _ in range(FIRST_LOOK):
            self.tick()
        (child,) = self.core.replicas(self.model)
        return child

    def tick(self) -> None:
        """And what this look finds is there at the next one."""
        self.watch.tick(self.core, NOW)
        if self.watch._look is not None:
            self.watch._look.join()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file({"w": np.zeros(1 << 20, np.float32)}, tmp_path / "model.safetensors")
    return tmp_path


@pytest.fixture
def rig(request: pytest.FixtureRequest, folder: Path) -> Iterator[Rig]:
    backend, device, memory = getattr(request, "param", ("reference", "cpu", Memory()))
    config = ModelConfig(Model("m", backend, path=str(folder)), Deployment(device=device))
    made = Rig(config, memory)
    yield made
    made.watch.close()


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    found = Driver()
    monkeypatch.setitem(sys.modules, "pynvml", found)
    return found


def test_a_model_is_reserved_for_by_its_files_before_it_is_started(rig: Rig) -> None:
    child = rig.start()
    assert child.need_bytes == 4 << 20
    assert child.device == "cpu"
    assert rig.core.budgets["cpu"] > GIB
    assert rig.watch.environment(child.device) == {}


@pytest.mark.parametrize("rig", [("reference", "cpu", Memory(budget_gib=0.001))], indirect=True)
def test_a_model_larger_than_the_budget_is_not_started(rig: Rig) -> None:
    child = rig.start()
    assert child.state == "failed"
    assert "budget_gib" in child.reason


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize("rig", [("transformers", "cuda:1", Memory())], indirect=True)
def test_a_model_for_a_gpu_is_placed_there_and_sees_nothing_else(rig: Rig) -> None:
    child = rig.start()
    assert child.device == "cuda:1"
    assert rig.core.budgets["cuda:1"] == 72 * GIB
    assert rig.watch.environment(child.device)["CUDA_VISIBLE_DEVICES"] == "1"
    rig.tick()
    rig.tick()
    assert rig.core.room.free["cuda:1"] == 71 * GIB


@pytest.mark.usefixtures("driver")
def test_the_driver_is_not_asked_before_the_start_where_no_model_needs_it(rig: Rig) -> None:
    rig.start()
    assert rig.watch.gpus == []
    rig.tick()
    rig.tick()
    assert len(rig.watch.gpus) == 2
    assert set(rig.core.budgets) == {"cpu", "cuda:0", "cuda:1"}


def test_a_reload_may_change_the_budget(rig: Rig) -> None:
    rig.start()
    rig.memory.budget_gib = 3.0
    rig.tick()
    rig.tick()
    assert rig.core.budgets["cpu"] == 3 * GIB


def test_what_an_instance_takes_is_told_and_remembered(rig: Rig) -> None:
    child = rig.start()
    rig.tick()
    rig.tick()
    assert child.measured_bytes > 4 << 20
    assert rig.model.memory_bytes == 0  # it is still loading
    child.state = READY
    for _ in range(INSTANCES_EVERY + 1):
        rig.tick()
    assert rig.model.memory_bytes == child.measured_bytes
    assert rig.model.index in rig.core.models.changed
    assert rig.core.room.need(rig.model) == rig.model.memory_bytes
    assert rig.core.room.free["cpu"] > 0


def test_weights_of_an_unloaded_model_that_was_asked_for_come_into_the_page_cache(
    rig: Rig, folder: Path
) -> None:
    file = folder / "model.safetensors"
    if not hasattr(os, "posix_fadvise") or not drop(file):
        pytest.skip("no way to drop a file from the page cache here")
    rig.watch.prepare(rig.core)
    load = ModelLoad(rig.model.index, waiting=0, running=0, accepted=5)
    rig.core.on_router_report(
        next(iter(rig.core.routers())), RouterReport([load], [], 0, "ready", b""), NOW
    )
    for _ in range(FILES_EVERY + 1):
        rig.tick()
    deadline = time.monotonic() + 30
    while cached_bytes(file) < file.stat().st_size:
        assert time.monotonic() < deadline


def drop(file: Path) -> bool:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return not cached_bytes(file)


def test_read_ahead_stops_while_something_loads(rig: Rig) -> None:
    child = rig.start()
    assert child.state == STARTING
    asked: list[Any] = []
    rig.watch._files.pause = lambda: asked.append("pause")  # type: ignore[method-assign]
    rig.tick()
    assert asked == ["pause"]
