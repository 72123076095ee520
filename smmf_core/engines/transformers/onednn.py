"""Linear layers of torch as oneDNN computes them on a CPU.

torch hands float32 products to MKL and, in any format, weights as they lie in memory. oneDNN with
weights in the order that it reads them in takes half the time or less where MKL does not know the
CPU, for one row as for a thousand (bench/engines). Owns the layers' replacement; must not change
what a layer is to others: its weight, bias and sizes can be read as before.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.nn.functional import linear

_FEW_ROWS = 4
_TWICE_BYTES = 4 << 20  # weights so small are held in both orders: some are read by others, too


class PackedLinear(torch.nn.Linear):  # type: ignore[misc]  # torch is not there to be checked
    """A Linear in whose place oneDNN computes. It becomes one by `pack_layer`."""

    _packed: torch.Tensor  # opaque, or the plain one when that is large and others use it, too
    _plain: torch.Tensor | None  # of small weights, and of those that others use, too
    _shift: torch.Tensor | None  # the bias: a Module finds its parameters slowly

    @property
    def weight(self) -> torch.Tensor:
        """A copy where only the packed weights are kept: whoever reads it does so rarely."""
        return self._packed.to_dense() if self._plain is None else self._plain

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  # as torch calls it
        size = input.numel()
        if self._packed is self._plain and size < _FEW_ROWS * self.in_features:
            return linear(input, self._plain, self._shift)
        if not size:
            return input.new_empty((*input.shape[:-1], self.out_features))
        product: torch.Tensor = _product(input, self._packed, self._shift, "none", [], "")
        return product


def pack_layers(model: torch.nn.Module) -> None:
    """Have oneDNN compute the plain linear layers of a model that lies on this CPU. Nothing is done
    where torch comes without it."""
    owners = owners_of(model)
    for layer in list(model.modules()):
        if is_plain(layer):
            is_small = layer.weight.nbytes <= _TWICE_BYTES
            is_shared = owners[id(layer.weight)] > 1
            pack_layer(layer, is_small or not is_shared, is_small or is_shared)


def owners_of(model: torch.nn.Module) -> Counter[int]:
    """By a parameter's id: how many layers have it."""
    return Counter(
        id(parameter)
        for module in model.modules()
        for parameter in module.parameters(recurse=False)
    )


def _product(*arguments: Any) -> Any:
    return torch.ops.mkldnn._linear_pointwise.default(*arguments)


def is_plain(layer: Any) -> bool:
    """Not a quantised one, one that is moved about by hooks, or one whose format needs a CPU, or a
    torch, that this is not."""
    if not torch.backends.mkldnn.is_available():
        return False
    if type(layer) is not torch.nn.Linear or "forward" in vars(layer):
        return False
    weight = layer.weight
    if weight.device.type != "cpu":
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return bool(weight.dtype == torch.float32)


def pack_layer(layer: Any, is_packed: bool = True, keeps_plain: bool = False) -> None:
    """Hold the weights in oneDNN's order, in their own, or in both."""
    weight = layer.weight.detach()
    packed = weight
    if is_packed:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _FEW_ROWS)
    if not keeps_plain:
        del layer._parameters["weight"]
    layer.__class__ = PackedLinear
    layer._packed = packed
    layer._shift = None if layer.bias is None else layer.bias.detach()
    layer._plain = weight if keeps_plain else None
