"""From a transformer's hidden states to one vector per text, on tensors.

Owns the arithmetic of poolings, dense layers and normalisation (as sentence-transformers defines
it); must not know where a recipe came from.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smmf_core.engines.embed.recipe import Dense, Recipe

Pool = Callable[[Tensor, Tensor], Tensor]
"""(hidden states [n, length, dim], mask [n, length], padded at the end) -> [n, dim]"""


class Head:
    """All that comes after the transformer."""

    def __init__(self, recipe: Recipe, device: torch.device, dtype: torch.dtype) -> None:
        self._pools = [POOLS[mode] for mode in recipe.pooling]
        self._dense = [_load_dense(dense).to(device, dtype) for dense in recipe.dense]
        self._normalize = recipe.normalize

    def dimensions(self, hidden: int) -> int:
        wide = hidden * len(self._pools)
        return int(self._dense[-1][0].out_features) if self._dense else wide

    def __call__(self, hidden: Tensor, mask: Tensor) -> Tensor:
        pooled = [pool(hidden, mask) for pool in self._pools]
        vectors = pooled[0] if len(pooled) == 1 else torch.cat(pooled, dim=-1)
        for layer in self._dense:
            vectors = layer(vectors.to(hidden.dtype))
        vectors = vectors.float()
        return torch.nn.functional.normalize(vectors, dim=-1) if self._normalize else vectors


def _cls(hidden: Tensor, mask: Tensor) -> Tensor:
    return hidden[:, 0]


def _last(hidden: Tensor, mask: Tensor) -> Tensor:
    rows = torch.arange(len(hidden), device=hidden.device)
    return hidden[rows, mask.sum(dim=1) - 1]


def _max(hidden: Tensor, mask: Tensor) -> Tensor:
    return hidden.masked_fill(mask[..., None] == 0, float("-inf")).amax(dim=1)


def _sum(hidden: Tensor, weights: Tensor) -> Tensor:
    """[n, dim]; a product of matrices, which never makes the weighted states."""
    return torch.bmm(weights[:, None].float(), hidden.float())[:, 0]


def _mean(hidden: Tensor, mask: Tensor) -> Tensor:
    return _sum(hidden, mask) / mask.sum(dim=1, keepdim=True)


def _mean_sqrt(hidden: Tensor, mask: Tensor) -> Tensor:
    return _sum(hidden, mask) / mask.sum(dim=1, keepdim=True).sqrt()


def _weighted_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    weights = mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)
    return _sum(hidden, weights) / weights.sum(dim=1, keepdim=True)


POOLS: dict[str, Pool] = {
    "cls": _cls,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt,
    "weightedmean": _weighted_mean,
    "lasttoken": _last,
}


def _load_dense(dense: Dense) -> Any:
    weights = _weights(dense.folder)
    linear = torch.nn.Linear(dense.inputs, dense.outputs, bias=dense.has_bias)
    linear.load_state_dict({name.removeprefix("linear."): w for name, w in weights.items()})
    return torch.nn.Sequential(linear, activation(dense.activation)).eval()


def _weights(folder: Path) -> dict[str, Tensor]:
    if (folder / "model.safetensors").is_file():
        from safetensors.torch import load_file

        loaded: dict[str, Tensor] = load_file(folder / "model.safetensors")
        return loaded
    unpickled: dict[str, Tensor] = torch.load(
        folder / "pytorch_model.bin", map_location="cpu", weights_only=True
    )
    return unpickled


def activation(name: str) -> Any:
    """An activation module by its dotted name below torch.nn. Raises ValueError."""
    module, _, attribute = name.rpartition(".")
    is_ours = module.startswith("torch.nn")
    found = getattr(import_module(module), attribute, None) if is_ours else None
    if not (isinstance(found, type) and issubclass(found, torch.nn.Module)):
        raise ValueError(f"the activation {name} is not one of torch.nn's")
    return found()
