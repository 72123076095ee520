"""Which quantisation a model is loaded with: what the configuration wants, what the checkpoint has.

Owns the names of the methods and what each needs installed; must not load anything.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from smmf_core.config import ModelConfig

_WHILE_LOADING = {"bitsandbytes_8bit": 8, "bitsandbytes_4bit": 4}
_PLAIN_KERNELS = {"gptq": "gptq_torch", "awq": "torch_awq"}
_PACKAGES = {  # what transformers computes with
    "bitsandbytes": ("bitsandbytes", "accelerate"),
    "gptq": ("gptqmodel", "optimum"),
    "awq": ("gptqmodel", "accelerate"),
    "compressed-tensors": ("compressed_tensors",),
    "torchao": ("torchao",),
}


@dataclass(slots=True)
class Quantization:
    """`bits` of a matrix's numbers, where they are quantised while the model is loaded; else 0."""

    method: str = ""
    bits: int = 0


def quantization(config: ModelConfig, stored: dict[str, Any] | None) -> Quantization:
    """`stored`: the checkpoint's `quantization_config`. Raises ValueError in one sentence."""
    wanted = _wanted(config)
    method = str((stored or {}).get("quant_method") or "")
    if not method:
        if not wanted:
            return Quantization()
        if wanted not in _WHILE_LOADING:
            raise ValueError(
                f"quantization is {wanted!r}, but the checkpoint is not quantised that way; while "
                f"loading, a model can be quantised to {' or '.join(_WHILE_LOADING)}."
            )
        need_packages(wanted)
        return Quantization(wanted, _WHILE_LOADING[wanted])
    if wanted and _family(wanted) != _family(method):
        raise ValueError(f"quantization is {wanted!r}, but the checkpoint is of type {method}.")
    need_packages(method)
    return Quantization(method)


def settings(method: Quantization, dtype: torch.dtype) -> Any:
    """transformers' own words for a quantisation while loading; `dtype`: what is computed in."""
    if method.bits == 4:
        return BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    # It says in every layer of every step that it computes in float16.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    return BitsAndBytesConfig(load_in_8bit=True)


def plain_kernels(model_config: Any) -> None:
    """On a CPU: what runs at once. The kernels that gptqmodel would choose are compiled by a C++
    compiler when they are first used, which takes minutes."""
    stored = getattr(model_config, "quantization_config", None)
    if isinstance(stored, dict) and stored.get("quant_method") in _PLAIN_KERNELS:
        stored.setdefault("backend", _PLAIN_KERNELS[stored["quant_method"]])


def uncompiled(model: Any) -> None:
    """gptqmodel's plain layers have their unpacking compiled per shape: take that back."""
    for module in model.modules():
        if type(module).__module__.startswith("gptqmodel."):
            vars(module).pop("dequantize_weight", None)


def need_packages(method: str) -> None:
    """Raises ValueError when a package is missing that the method computes with.

    The command keeps torch as it is: the newest of these would bring another build of it.
    """
    names = _PACKAGES.get(_family(method), ())
    for name in names:
        if find_spec(name) is None:
            kept = f"torch=={torch.__version__.partition('+')[0]}"
            raise ValueError(
                f"The quantisation {method} needs the package {name}: "
                f"run `{sys.executable} -m pip install {' '.join(names)} {kept}`."
            )


def _wanted(config: ModelConfig) -> str:
    """`quantization` of [engine], else of [optimization], else what load_in_... ask for."""
    options = config.optimization
    named: str = config.engine.get("quantization") or options.quantization
    if named == "bitsandbytes":
        named = "bitsandbytes_4bit" if options.load_in_4bit else "bitsandbytes_8bit"
    if named:
        return named
    if options.load_in_8bit and options.load_in_4bit:
        raise ValueError("load_in_8bit and load_in_4bit exclude each other.")
    if options.load_in_4bit:
        return "bitsandbytes_4bit"
    return "bitsandbytes_8bit" if options.load_in_8bit else ""


def _family(method: str) -> str:
    return method.partition("_")[0] if method in _WHILE_LOADING else method
