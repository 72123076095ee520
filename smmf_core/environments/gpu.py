"""Which GPUs this machine has: by `nvidia-smi` where there is one, else by what the kernel shows.

Owns what a card's name and compute capability mean; must not import an ML package.
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

NVIDIA_SMI_S = 10.0  # the first call after boot loads the driver
_FIELDS = ("name", "memory.total", "driver_version", "compute_cap")
_AMD_VENDOR = "0x1002"

GENERATIONS = {  # compute capability x 10, its first two digits decide (NVIDIA's CUDA GPU list)
    50: "Maxwell",
    52: "Maxwell",
    53: "Maxwell",
    60: "Pascal",
    61: "Pascal",
    62: "Pascal",
    70: "Volta",
    72: "Volta",
    75: "Turing",
    80: "Ampere",
    86: "Ampere",
    87: "Ampere",
    89: "Ada",
    90: "Hopper",
    100: "Blackwell",
    103: "Blackwell",
    110: "Blackwell",
    120: "Blackwell",
    121: "Blackwell",
}
_BY_NAME = (  # for drivers whose nvidia-smi does not tell the capability; the first that fits
    (r"\b(B200|GB200|B100)\b", 100),
    (r"RTX 50\d\d|RTX PRO \d+ Blackwell", 120),
    (r"\b(H100|H200|H800|H20|GH200)\b", 90),
    (r"RTX 40\d\d|\bL40S?\b|\bL4\b|RTX \d+ Ada", 89),
    (r"RTX 30\d\d|\bA(2|10|16|40)\b|\bA10G\b|RTX A\d+", 86),
    (r"\bA(100|30|800)\b", 80),
    (r"RTX 20\d\d|GTX 16\d\d|\bT4\b|Quadro RTX|TITAN RTX", 75),
    (r"V100|TITAN V", 70),
    (r"GTX 10\d\d|\bP(4|6|40)\b|TITAN X[pP]?", 61),
    (r"\bP100\b", 60),
)


@dataclass(frozen=True)
class Gpu:
    """One card. `capability` is ten times the compute capability, 0 when unknown."""

    name: str
    memory_mib: int
    driver: str
    capability: int

    @property
    def generation(self) -> str:
        if not self.capability:
            return "unknown generation"
        known = GENERATIONS.get(self.capability)
        return f"{known or 'a later generation'} sm{self.capability}"


@dataclass(frozen=True)
class Found:
    """What there is. `cuda` is the newest CUDA version that the driver runs; `other` words for
    what is not NVIDIA's, or why nothing can be told."""

    gpus: tuple[Gpu, ...] = ()
    cuda: str = ""
    other: str = ""


def find() -> Found:
    """Asks nvidia-smi twice: its table has what its query has not."""
    rows = _ask(f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits")
    if rows is None:  # a driver of before compute_cap
        rows = _ask(f"--query-gpu={','.join(_FIELDS[:3])}", "--format=csv,noheader,nounits")
    if rows is not None:
        return Found(parse_rows(rows), parse_cuda(_ask() or ""))
    return Found(other=_without_nvidia())


def parse_rows(text: str) -> tuple[Gpu, ...]:
    """`nvidia-smi --query-gpu=...` as CSV without units, with or without the capability."""
    gpus = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) < 3:
            continue
        name, memory, driver, *more = cells
        told = more[0] if more else ""
        capability = round(float(told) * 10) if re.fullmatch(r"\d+\.\d", told) else of_name(name)
        mib = int(float(memory)) if re.fullmatch(r"[\d.]+", memory) else 0
        gpus.append(Gpu(name, mib, driver, capability))
    return tuple(gpus)


def parse_cuda(text: str) -> str:
    """The CUDA version in nvidia-smi's table; "" without one."""
    found = re.search(r"CUDA(?: \w+)? Version\s*:\s*(\d+\.\d+)", text)
    return found[1] if found else ""


def of_name(name: str) -> int:
    """The capability x 10 of a card by its name; 0 for an unknown one."""
    return next((value for pattern, value in _BY_NAME if re.search(pattern, name)), 0)


def _ask(*flags: str) -> str | None:
    """None when there is no nvidia-smi or it does not answer."""
    try:
        done = subprocess.run(
            ["nvidia-smi", *flags], capture_output=True, text=True, timeout=NVIDIA_SMI_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _without_nvidia() -> str:
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return "Apple silicon: its GPU is used by `smmf engines install mlx` and llama-cpp"
    driver = Path("/proc/driver/nvidia/version")
    if driver.exists():
        return f"an NVIDIA driver without nvidia-smi: {driver.read_text().splitlines()[0]}"
    if any(f.read_text().strip() == _AMD_VENDOR for f in _cards()):
        return "an AMD GPU: no engine has builds for ROCm here; they run on the CPU"
    return "no GPU: engines run on the CPU"


def _cards() -> list[Path]:
    return list(Path("/sys/class/drm").glob("card*/device/vendor"))
