"""vLLM's own C++ kernels where its CPU build runs chains of torch operations in their place.

vLLM leaves norms and activations to torch.compile on a CPU; without it (half a minute of start) a
norm is eight operations, though the build has it as one. Owns which kernels those are, given to
vLLM by the two ways it has for kernels from outside; must not change what an operation computes.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

_PROVIDER = "smmf_c"
_WIDTH_STEP = 16


def prefer_c_kernels() -> dict[str, Any]:
    """Before a model is made. Returns the engine arguments that choose them: none for a vLLM that
    lacks the kernels or has no such way yet."""
    try:
        from vllm.engine.arg_utils import EngineArgs
        from vllm.ir import ops
        from vllm.model_executor.layers.activation import SiluAndMul
    except ImportError:
        return {}
    names = ("rms_norm", "fused_add_rms_norm")
    is_built = all(hasattr(torch.ops._C, name) for name in (*names, "silu_and_mul"))
    if not is_built or not all(hasattr(ops, name) for name in names):
        return {}
    if not any(field.name == "ir_op_priority" for field in fields(EngineArgs)):
        return {}
    if _PROVIDER not in ops.rms_norm.impls:
        ops.rms_norm.register_impl(_PROVIDER, supports_args=_takes)(_norm)
        add = ops.fused_add_rms_norm
        add.register_impl(_PROVIDER, supports_args=_takes_both, inplace=True)(_add_and_norm)
        _register_activation(SiluAndMul)
    return {"ir_op_priority": {name: [_PROVIDER] for name in names}}


def _norm(
    x: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None
) -> Tensor:
    output = torch.empty_like(x)
    torch.ops._C.rms_norm(output, x, weight, epsilon)
    return output


def _add_and_norm(
    x: Tensor,
    x_residual: Tensor,
    weight: Tensor | None,
    epsilon: float,
    variance_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    torch.ops._C.fused_add_rms_norm(x, x_residual, weight, epsilon)
    return x, x_residual


def _takes(
    x: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None
) -> bool:
    if variance_size is not None or weight is None:
        return False
    return _is_simple(x) and bool(weight.dtype == x.dtype)


def _takes_both(
    x: Tensor,
    x_residual: Tensor,
    weight: Tensor | None,
    epsilon: float,
    variance_size: int | None = None,
) -> bool:
    is_like = x_residual.is_contiguous() and x_residual.dtype == x.dtype
    return _takes(x, weight, epsilon, variance_size) and bool(is_like)


def _is_simple(x: Tensor) -> bool:
    """The kernels heed no strides, and take whole vectors of the CPU only."""
    return bool(x.is_contiguous() and x.shape[-1] % _WIDTH_STEP == 0)


def _register_activation(silu_and_mul: Any) -> None:
    class SiluAndMulInOne(silu_and_mul):  # type: ignore[misc]  # vLLM is not there to be checked
        def forward_cpu(self, x: Tensor) -> Tensor:
            if not _is_simple(x) or x.shape[-1] % (2 * _WIDTH_STEP):
                return self.forward_native(x)
            output = x.new_empty((*x.shape[:-1], x.shape[-1] // 2))
            torch.ops._C.silu_and_mul(output, x)
            return output

    silu_and_mul.register_oot(SiluAndMulInOne)
