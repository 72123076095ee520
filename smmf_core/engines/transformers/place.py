"""Where a model is loaded, in which number format, and with which attention.

Owns what `auto` means and what a machine does not have; must not load anything.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import Any

import torch

_log = logging.getLogger("smmf.transformers")

ATTENTIONS = ("eager", "sdpa", "flash_attention_2")


def choose_device(wanted: str) -> torch.device:
    """`auto`: the first GPU, else Apple's, else the CPU. Raises ValueError."""
    if wanted == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        return torch.device("mps" if torch.backends.mps.is_available() else name)
    device = torch.device(wanted)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise ValueError(f"There is no device {wanted}: this torch sees {count} CUDA devices.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("There is no device mps: this torch sees no GPU of Apple's.")
    return device


def choose_dtype(wanted: str, stored: torch.dtype | None, device: torch.device) -> torch.dtype:
    """`auto`: the checkpoint's own, but what the device computes fast: float32 instead of float16
    on a CPU, float16 instead of bfloat16 on a GPU before Ampere."""
    if wanted != "auto":
        dtype: torch.dtype = getattr(torch, wanted)
        return dtype
    if stored is None or not stored.is_floating_point or stored.itemsize == 1:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if device.type == "cpu" and stored == torch.float16:
        return torch.float32
    if device.type == "cuda" and stored == torch.bfloat16 and not torch.cuda.is_bf16_supported():
        return torch.float16
    return stored


def choose_attention(wanted: str) -> str | None:
    """None: the library's own choice. Raises ValueError for an unknown name."""
    if not wanted:
        return None
    if wanted not in ATTENTIONS:
        raise ValueError(f"attention is {wanted!r}: this engine has {', '.join(ATTENTIONS)}.")
    if wanted == "flash_attention_2" and find_spec("flash_attn") is None:
        _log.warning(
            "attention = 'flash_attention_2' needs the package flash-attn "
            "(`pip install smmf[flash-attn]`): sdpa is used instead"
        )
        return "sdpa"
    return wanted


def use_threads(count: int) -> None:
    """For torch's own work on the CPU, in this process from now on."""
    torch.set_num_threads(count)


def devices_of(placement: Any, device: torch.device) -> list[torch.device]:
    """Where weights may come to lie."""
    if isinstance(placement, dict):
        return list({torch.device(place) for place in placement.values() if place != "disk"})
    gpus = [torch.device("cuda", n) for n in range(torch.cuda.device_count())]
    return [*gpus, torch.device("cpu")] if gpus else [device]
