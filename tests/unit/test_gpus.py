"""GPUs by NVML, over a stand-in for the driver's library; budgets and free memory of devices."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from smmf_core.config import Deployment, Memory, Model, ModelConfig
from smmf_core.controller import gpus
from smmf_core.controller.gpus import Gpu, Nvml, used_by, visible_numbers

GIB = 2**30
UUIDS = ["GPU-aaaa-1", "GPU-bbbb-2", "GPU-bbcc-3"]


class Driver(types.ModuleType):
    """What nvidia-ml-py offers of two cards, or of those that `broken` leaves."""

    class NVMLError(Exception):
        pass

    def __init__(self, count: int = 2) -> None:
        super().__init__("pynvml")
        self.count = count
        self.broken: set[tuple[str, int]] = set()  # (function, card)
        self.has_driver = True

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.has_driver:
            raise self.NVMLError

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return self.count

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:  # noqa: N802
        return number

    def nvmlDeviceGetUUID(self, number: int) -> str:  # noqa: N802
        return UUIDS[number]

    def nvmlDeviceGetMemoryInfo(self, number: int) -> Any:  # noqa: N802
        self._answer("memory", number)
        return types.SimpleNamespace(total=80 * GIB, free=(70 + number) * GIB)

    def nvmlDeviceGetUtilizationRates(self, number: int) -> Any:  # noqa: N802
        self._answer("use", number)
        return types.SimpleNamespace(gpu=37)

    def nvmlDeviceGetComputeRunningProcesses(self, number: int) -> list[Any]:  # noqa: N802
        self._answer("processes", number)
        return [
            types.SimpleNamespace(pid=100 + number, usedGpuMemory=5 * GIB),
            types.SimpleNamespace(pid=7, usedGpuMemory=None),
        ]

    def _answer(self, function: str, number: int) -> None:
        if (function, number) in self.broken:
            raise self.NVMLError


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    found = Driver()
    monkeypatch.setitem(sys.modules, "pynvml", found)
    return found


@pytest.mark.usefixtures("driver")
def test_every_card_tells_memory_use_and_processes() -> None:
    first, second = Nvml(None).gpus()
    assert first == Gpu("cuda:0", 0, 80 * GIB, 70 * GIB, 0.37, {100: 5 * GIB, 7: 0})
    assert (second.name, second.free_bytes, second.used_bytes) == ("cuda:1", 71 * GIB, 9 * GIB)
    assert used_by([100, 101, 4711], [first, second]) == 10 * GIB


def test_no_library_no_driver_and_no_card_are_no_gpus(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.count = 0
    assert Nvml(None).gpus() == []
    driver.has_driver = False
    assert Nvml(None).gpus() == []
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert Nvml(None).gpus() == []


def test_a_card_that_does_not_answer_is_left_out_and_the_others_keep_their_names(
    driver: Driver,
) -> None:
    driver.broken = {("memory", 0), ("use", 1), ("processes", 1)}
    (card,) = Nvml(None).gpus()
    assert (card.name, card.utilization, card.processes) == ("cuda:1", 0.0, {})


@pytest.mark.usefixtures("driver")
def test_only_cards_that_this_process_may_use_have_names() -> None:
    (card,) = Nvml("1").gpus()
    assert (card.name, card.number) == ("cuda:0", 1)
    assert gpus.environment(("cuda:0",), [card])["CUDA_VISIBLE_DEVICES"] == "1"


@pytest.mark.parametrize(
    ("visible", "numbers"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("2,0", [2, 0]),
        (" 1 , 2 ", [1, 2]),
        ("GPU-bbcc", [2]),
        ("GPU-bb", []),  # means two
        ("0,-1,2", [0]),
        ("0,9,1", [0]),
    ],
)
def test_visible_devices_are_read_as_cuda_does(visible: str | None, numbers: list[int]) -> None:
    assert visible_numbers(UUIDS, visible) == numbers


def test_a_worker_sees_its_devices_and_no_others() -> None:
    cards = [card("cuda:0", number=3), card("cuda:1", number=5)]
    assert gpus.environment(("cuda:1", "cuda:0"), cards) == {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "5,3",
    }
    assert gpus.environment(("cpu",), cards) == {}


def card(name: str = "cuda:0", number: int = 0, total: int = 80) -> Gpu:
    return Gpu(name, number, total * GIB, 60 * GIB)


def test_budgets_are_nine_tenths_or_the_operators_word() -> None:
    ram = gpus.ram_bytes()
    assert gpus.budgets(Memory(), [card()]) == {"cpu": int(ram * 0.9), "cuda:0": 72 * GIB}
    assert gpus.budgets(Memory(budget_gib=2.5), [card()])["cpu"] == int(2.5 * GIB)
    per_device = Memory(budget_gib={"cuda:0": 10})
    assert gpus.budgets(per_device, [card()]) == {"cpu": int(ram * 0.9), "cuda:0": 10 * GIB}


def test_free_memory_is_told_but_not_of_ram_with_a_budget_of_its_own() -> None:
    found = gpus.free(Memory(), [card()])
    assert found["cuda:0"] == 60 * GIB
    assert 0 < found["cpu"] <= gpus.ram_bytes()
    assert gpus.free(Memory(budget_gib=1), [card()]) == {"cuda:0": 60 * GIB}


def test_a_containers_limit_is_its_ram(tmp_path: Path) -> None:
    whole = gpus.ram_bytes(tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    assert gpus.ram_bytes(tmp_path) == whole
    (tmp_path / "memory.max").write_text(f"{64 << 20}\n")
    assert gpus.ram_bytes(tmp_path) == 64 << 20


@pytest.mark.parametrize(
    ("backend", "deployment", "is_gpu"),
    [
        ("vllm", Deployment(), True),
        ("transformers", Deployment(), True),
        ("echo", Deployment(), False),
        ("reference", Deployment(), False),
        ("vllm", Deployment(device="cpu"), False),
        ("transformers", Deployment(device="cuda:1", gpus=1), True),
    ],
)
def test_auto_is_a_gpu_for_engines_that_use_one(
    backend: str, deployment: Deployment, is_gpu: bool
) -> None:
    config = ModelConfig(model=Model(name="m", backend=backend), deployment=deployment)
    cards = [card("cuda:0", 0, 24), card("cuda:1", 1, 80)]
    budgets = gpus.budgets(Memory(), cards)
    place = gpus.find_place(config, cards, budgets)
    assert place.is_gpu == is_gpu
    assert place.budget_bytes == (72 * GIB if is_gpu else budgets["cpu"])
