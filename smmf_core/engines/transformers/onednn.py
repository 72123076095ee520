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
from torch.nn.functional import linear, pad

_FEW_ROWS = 4
_ROWS_STEP = 16  # oneDNN compiles anew, for half a millisecond, for each number of rows
_COPIED_BYTES = 16 << 20  # at most, of weights that others use in their own order, too


class PackedLinear(torch.nn.Linear):  # type: ignore[misc]  # torch is not there to be checked
    """A Linear in whose place oneDNN computes. It becomes one by `pack`, it is not made."""

    _packed: torch.Tensor  # opaque, or the plain one when that is large and others use it, too
    _plain: torch.Tensor | None  # of a layer whose weights others use, too
    _shift: torch.Tensor | None  # the bias: a Module finds its parameters slowly

    @property
    def weight(self) -> torch.Tensor:
        """A copy, unless others use it, too: whoever reads it does so rarely."""
        return self._packed.to_dense() if self._plain is None else self._plain

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  # as torch calls it
        size = input.numel()
        if self._packed is self._plain and size < _FEW_ROWS * self.in_features:
            return linear(input, self._plain, self._shift)
        if not size:
            return input.new_empty((*input.shape[:-1], self.out_features))
        count = size // self.in_features
        surplus = -count % _ROWS_STEP if count > _ROWS_STEP else 0
        if not surplus:
            return self._multiply(input)
        rows = pad(input.reshape(count, self.in_features), (0, 0, 0, surplus))
        return self._multiply(rows)[:count].view(*input.shape[:-1], self.out_features)

    def _multiply(self, rows: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = _product(rows, self._packed, self._shift, "none", [], "")
        return product


def pack_layers(model: torch.nn.Module) -> None:
    """Have oneDNN compute the plain linear layers of a model that lies on this CPU. Nothing is done
    where torch comes without it."""
    owners = owners_of(model)
    for layer in list(model.modules()):
        if is_plain(layer):
            pack_layer(layer, is_shared=owners[id(layer.weight)] > 1)


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


def pack_layer(layer: Any, is_shared: bool = False) -> None:
    """`is_shared`: the weights stay where they are; small ones there, too."""
    weight = layer.weight.detach()
    packed = weight
    if not is_shared or weight.nbytes <= _COPIED_BYTES:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _FEW_ROWS)
    if not is_shared:
        del layer._parameters["weight"]
    layer.__class__ = PackedLinear
    layer._packed = packed
    layer._shift = None if layer.bias is None else layer.bias.detach()
    layer._plain = weight if is_shared else None
