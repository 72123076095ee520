"""Linear layers that read the same rows, held and computed as one.

A call costs as much as reading a hundred kilobytes of weights: a small model's query, key and value
are three calls less. Owns which layers these are; each is still a layer by itself to others.
"""

from __future__ import annotations

from typing import Any

import torch

from smmf_core.engines.transformers.onednn import PackedLinear, is_plain, owners_of, pack_layer

_TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
_KNOWN_CODE = ("transformers.", "smmf_core.")
_MOST_BYTES = 64 << 20  # beside so many weights a call costs nothing, and joining takes a copy


class Joint:
    """The layers' weights below each other. What was computed last is kept until each of the layers
    has asked for its part of it, once."""

    def __init__(self, layer: PackedLinear, ends: list[int]) -> None:
        self.layer = layer
        self._ends = [0, *ends]
        self._input: torch.Tensor | None = None
        self._output: torch.Tensor | None = None
        self._asked: set[int] = set()

    def columns(self, part: int) -> slice:
        return slice(self._ends[part], self._ends[part + 1])

    def compute(self, part: int, rows: torch.Tensor) -> torch.Tensor:
        output = self._output
        if output is None or rows is not self._input or part in self._asked:
            output = self.layer.forward(rows)
            self._input, self._output, self._asked = rows, output, set()
        self._asked.add(part)
        if len(self._asked) == len(self._ends) - 1:
            self._input = self._output = None
        return output[..., self.columns(part)]


class JointPart(torch.nn.Linear):  # type: ignore[misc]  # torch is not there to be checked
    """A Linear whose weights lie with others'. It becomes one by `join`."""

    joint: Joint
    _part: int

    @property
    def weight(self) -> torch.Tensor:
        """A copy: whoever reads it does so rarely."""
        return self.joint.layer.weight[self.joint.columns(self._part)]

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  # as torch calls it
        return self.joint.compute(self._part, input)


def join(model: torch.nn.Module) -> None:
    """Of a model that lies on this CPU, before its other layers are packed. Not in code that came
    with a checkpoint: it may change its rows between two layers."""
    owners = owners_of(model)
    for module in list(model.modules()):
        if not type(module).__module__.startswith(_KNOWN_CODE):
            continue
        for names in _TOGETHER:
            layers: list[Any] = [getattr(module, name, None) for name in names]
            is_fit = all(_fits(layer, layers[0]) for layer in layers) and _is_light(layers)
            if is_fit and all(owners[id(layer.weight)] == 1 for layer in layers):
                _join_layers(layers)


def _fits(layer: Any, first: Any) -> bool:
    if not is_plain(layer):
        return False
    is_like = layer.in_features == first.in_features and layer.weight.dtype == first.weight.dtype
    return bool(is_like and (layer.bias is None) == (first.bias is None))


def _is_light(layers: list[Any]) -> bool:
    return bool(sum(layer.weight.nbytes for layer in layers) <= _MOST_BYTES)


def _join_layers(layers: list[Any]) -> None:
    ends: list[int] = []
    for layer in layers:
        ends.append(layer.out_features + (ends[-1] if ends else 0))
    has_bias = layers[0].bias is not None
    whole = torch.nn.Linear(layers[0].in_features, ends[-1], bias=has_bias, device="meta")
    whole.weight = torch.nn.Parameter(torch.cat([layer.weight for layer in layers]), False)
    if has_bias:
        whole.bias = torch.nn.Parameter(torch.cat([layer.bias for layer in layers]), False)
    pack_layer(whole)
    joint = Joint(whole, ends)
    for part, layer in enumerate(layers):
        del layer._parameters["weight"]
        layer.__class__ = JointPart
        layer.joint, layer._part = joint, part
