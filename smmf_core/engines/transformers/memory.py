"""Whether a model's weights fit into the memory of where they are to be loaded.

Owns the estimate; must not load anything.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from smmf_core.engines import host_memory
from smmf_core.engines.transformers.files import Stored

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


def check_fits(needed: int, devices: Sequence[torch.device | str]) -> None:
    """Raises MemoryError when these devices together do not have so many bytes free."""
    free = sum(free_bytes(torch.device(device)) for device in devices)
    place = " and ".join(str(device) for device in devices)
    host_memory.check_weights_fit(needed, free, place)


def release_cached() -> None:
    """Give back what torch keeps of a GPU for later."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def free_bytes(device: torch.device) -> int:
    """That a program could still have there."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return host_memory.free_bytes()
