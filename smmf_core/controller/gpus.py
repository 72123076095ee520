"""NVIDIA's GPUs by NVML, the machine's RAM, and what models may take of both.

Owns the questions to driver and kernel; must not decide who gets what. Without a GPU, a driver or
the library (nvidia-ml-py) there are none, which is no error.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smmf_core.config.schema import Memory, ModelConfig
from smmf_core.controller.need import Place
from smmf_core.controller.room import GPU_BACKENDS
from smmf_core.controller.swap import CPU, CUDA
from smmf_core.engines.host_memory import free_bytes

GIB = 2**30
BUDGET_SHARE = 0.9  # of a device: the rest is for its contexts, the system and other programs
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One card, now."""

    name: str  # as `[deployment] device` has it: "cuda:0" is the first that this process may use
    number: int  # NVML's, by the order on the bus
    total_bytes: int
    free_bytes: int
    utilization: float = 0.0  # 0..1, over the last second or less; 0 where the card does not tell
    processes: Mapping[int, int] = field(default_factory=dict)  # pid -> bytes

    @property
    def used_bytes(self) -> int:
        return self.total_bytes - self.free_bytes


class Nvml:
    """The driver's library, opened once, for one thread: opening takes up to a second, asking a
    millisecond a card."""

    def __init__(self, visible: str | None) -> None:
        """`visible`: this process's own CUDA_VISIBLE_DEVICES, None if it has none."""
        self._library = _open()
        self._visible = visible

    def gpus(self) -> list[Gpu]:
        """Those that this process may use. A card that does not answer (fallen off the bus, being
        reset) is left out; the others keep their names."""
        if self._library is None:
            return []
        try:
            count = self._library.nvmlDeviceGetCount()
            handles = [self._library.nvmlDeviceGetHandleByIndex(n) for n in range(count)]
            uuids = [str(self._library.nvmlDeviceGetUUID(handle)) for handle in handles]
        except self._library.NVMLError:
            return []
        numbers = visible_numbers(uuids, self._visible)
        cards = (self._read(f"{CUDA}:{n}", handles[number], number)
                 for n, number in enumerate(numbers))  # fmt: skip
        return [card for card in cards if card is not None]

    def _read(self, name: str, handle: Any, number: int) -> Gpu | None:
        try:
            memory = self._library.nvmlDeviceGetMemoryInfo(handle)
        except self._library.NVMLError:
            return None
        return Gpu(
            name, number, memory.total, memory.free, self._use(handle), self._processes(handle)
        )

    def _use(self, handle: Any) -> float:
        try:
            return float(self._library.nvmlDeviceGetUtilizationRates(handle).gpu) / 100
        except self._library.NVMLError:  # not told of parts of a card (MIG)
            return 0.0

    def _processes(self, handle: Any) -> dict[int, int]:
        """Of other users and containers the driver may tell nothing, or other pids."""
        try:
            found = self._library.nvmlDeviceGetComputeRunningProcesses(handle)
        except self._library.NVMLError:
            return {}
        return {process.pid: process.usedGpuMemory or 0 for process in found}


def used_by(pids: Iterable[int], gpus: Iterable[Gpu]) -> int:
    """Device memory of these processes together."""
    wanted = set(pids)
    return sum(size for gpu in gpus for pid, size in gpu.processes.items() if pid in wanted)


def find_place(config: ModelConfig, gpus: list[Gpu], budgets: Mapping[str, int]) -> Place:
    """Where a replica would go, as far as its need depends on it."""
    deployment = config.deployment
    is_gpu = deployment.device.startswith(CUDA)
    if deployment.device == "auto":
        is_gpu = bool(deployment.gpus) or (bool(gpus) and config.model.backend in GPU_BACKENDS)
    if not is_gpu:
        return Place(total_bytes=ram_bytes(), budget_bytes=budgets.get(CPU, 0))
    fitting = [gpu for gpu in gpus if deployment.device in ("auto", CUDA, gpu.name)]
    if not fitting:
        return Place(is_gpu=True)
    gpu = max(fitting, key=lambda gpu: gpu.total_bytes)
    budget = budgets.get(gpu.name, 0)
    return Place(True, max(1, deployment.gpus), gpu.total_bytes, budget)


def budgets(memory: Memory, gpus: list[Gpu]) -> dict[str, int]:
    """What models may take, by device: `[memory] budget_gib`, else BUDGET_SHARE of it."""
    given = memory.budget_gib if isinstance(memory.budget_gib, dict) else {CPU: memory.budget_gib}
    totals = {CPU: ram_bytes(), **{gpu.name: gpu.total_bytes for gpu in gpus}}
    return {
        name: int(given[name] * GIB) if given.get(name) else int(total * BUDGET_SHARE)
        for name, total in totals.items()
    }


def free(memory: Memory, gpus: list[Gpu]) -> dict[str, int]:
    """What is really free, by device. Not of RAM with a budget of its own: the kernel's idea of
    what is available knows swap space and caches less well than the operator does."""
    given = memory.budget_gib if isinstance(memory.budget_gib, dict) else {CPU: memory.budget_gib}
    found = {gpu.name: gpu.free_bytes for gpu in gpus}
    return found if given.get(CPU) else {CPU: free_bytes(), **found}


def environment(devices: tuple[str, ...], gpus: list[Gpu]) -> dict[str, str]:
    """For a process that shall see these devices only; in the order of NVML, which is the bus's."""
    numbers = {gpu.name: str(gpu.number) for gpu in gpus}
    seen = [numbers[name] for name in devices if name in numbers]
    if not seen:
        return {}
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(seen)}


def ram_bytes(cgroup: Path = _CGROUP) -> int:
    """Of the machine, or less where a container's limit says so (cgroup-v2, memory.max)."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit = (cgroup / "memory.max").read_text("ascii").strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total


def _open() -> Any:
    """None: no library, no driver, no card."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def visible_numbers(uuids: list[str], visible: str | None) -> list[int]:
    """The cards that CUDA_VISIBLE_DEVICES leaves (None: all), in its order: numbers or beginnings
    of UUIDs, up to the first word that means no card (CUDA's programming guide)."""
    if visible is None:
        return list(range(len(uuids)))
    found: list[int] = []
    for word in visible.split(","):
        matches = [n for n, uuid in enumerate(uuids) if _means(word.strip(), n, uuid)]
        if len(matches) != 1:
            break
        found += matches
    return found


def _means(word: str, number: int, uuid: str) -> bool:
    return word == str(number) or (word.startswith("GPU-") and uuid.startswith(word))
