"""Whether a model's weights fit into the memory of where they are to be loaded.

Owns the estimate and the question to the system; must not load anything.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch

from smmf_core.engines.hf_files import Stored

GIB = 2**30
_WHOLE_NAMES = re.compile(r"embed|lm_head|output\.weight$|wte|wpe|norm|bias")  # never quantised


def needed_bytes(tensors: list[Stored], dtype: torch.dtype, bits: int = 0) -> int:
    """Of weights held in `dtype`; `bits`: what the matrices are quantised to while loading."""
    total = 0.0
    for tensor in tensors:
        if not tensor.is_wide_float:
            total += tensor.stored_bytes
        elif bits and len(tensor.shape) == 2 and not _WHOLE_NAMES.search(tensor.name):
            total += tensor.numbers * bits / 8
        else:
            total += tensor.numbers * dtype.itemsize
    return int(total)


def check_fits(needed: int, devices: list[torch.device]) -> None:
    """Raises MemoryError when these devices together do not have so many bytes free."""
    known = [free_bytes(device) for device in devices]
    free = [size for size in known if size is not None]
    if not free or len(free) < len(known) or needed <= sum(free):
        return
    place = " and ".join(str(device) for device in devices)
    raise MemoryError(
        f"The weights need {needed / GIB:.2f} GiB, and {place} has {sum(free) / GIB:.2f} GiB free."
    )


def free_bytes(device: torch.device) -> int | None:
    """None: unknown."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    found = [size for size in (_available(), _left_in_cgroup()) if size is not None]
    return min(found, default=None)


def _available() -> int | None:
    """What the kernel thinks new programs can use (proc(5))."""
    text = _read("/proc/meminfo")
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _left_in_cgroup(folder: str = "/sys/fs/cgroup") -> int | None:
    """Of a container's limit, its file cache counted as free (cgroup-v2, memory controller)."""
    limit, used = _read(f"{folder}/memory.max").strip(), _read(f"{folder}/memory.current").strip()
    if not limit.isdigit() or not used.isdigit():
        return None
    cache = re.search(r"^inactive_file (\d+)", _read(f"{folder}/memory.stat"), re.MULTILINE)
    return int(limit) - int(used) + (int(cache[1]) if cache else 0)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except OSError:
        return ""
