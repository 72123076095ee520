"""Whether a model's weights fit into the memory of where they are to be loaded.

Owns the estimate; must not load anything.
"""

from __future__ import annotations

import re

import torch

from smmf_core.engines import host_memory
from smmf_core.engines.transformers.files import Stored

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
    free = sum(free_bytes(device) for device in devices)
    if needed <= free:
        return
    place = " and ".join(str(device) for device in devices)
    raise MemoryError(
        f"The weights need {needed / GIB:.2f} GiB, and {place} has {free / GIB:.2f} GiB free."
    )


def free_bytes(device: torch.device) -> int:
    """That a program could still have there."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return host_memory.free_bytes()
