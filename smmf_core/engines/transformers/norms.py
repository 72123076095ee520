"""RMS norms as one operation of torch's instead of the library's six, bit for bit the same.

Owns which layers are such norms: those whose answer to a trial is the same.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

_EPSILONS = ("variance_epsilon", "eps")
_TRIAL_ROWS = 4


def fuse_norms(model: torch.nn.Module) -> None:
    """Of a model in float32 on this CPU. In half precision the library rounds once more, and on
    other devices sums in another order."""
    for layer in model.modules():
        if type(layer).__name__.endswith("RMSNorm") and "forward" not in vars(layer):
            fused = _fused(layer)
            if fused is not None:
                layer.forward = fused


def _fused(layer: Any) -> Any:
    """None for a norm that has more to it, such as Gemma's, which adds one to its weight."""
    weight = getattr(layer, "weight", None)
    epsilon = next((getattr(layer, name) for name in _EPSILONS if hasattr(layer, name)), None)
    if weight is None or not isinstance(epsilon, float):
        return None
    if weight.dtype != torch.float32 or weight.device.type != "cpu":
        return None
    shape = tuple(weight.shape)
    fused = partial(torch.rms_norm, normalized_shape=shape, weight=weight.detach(), eps=epsilon)
    trial = torch.linspace(-2.0, 3.0, _TRIAL_ROWS * weight.numel()).reshape(_TRIAL_ROWS, *shape)
    with torch.inference_mode():
        return fused if torch.equal(layer(trial), fused(trial)) else None
