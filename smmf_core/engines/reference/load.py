"""From a Hugging Face folder's tensors to the reference engine's weights, every shape checked.

Owns the tensors' names; must not compute.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from smmf_core.engines.reference.checkpoint import Tensor, read_weights
from smmf_core.engines.reference.config import LlamaConfig
from smmf_core.engines.reference.model import Layer, Weights


def load_weights(folder: Path, config: LlamaConfig, progress: Callable[[float], None]) -> Weights:
    """Raises FileNotFoundError, or ValueError for missing tensors, wrong shapes, damaged files."""
    source = _Tensors(read_weights(folder, progress))
    width, vocab_size = config.width, config.vocab_size
    embedding = source.take("model.embed_tokens.weight", (vocab_size, width))
    head = embedding if config.is_tied else source.take("lm_head.weight", (vocab_size, width))
    return Weights(
        embedding=embedding,
        layers=[_layer(source, config, f"model.layers.{n}.") for n in range(config.layers)],
        norm=source.take("model.norm.weight", (width,)),
        head=np.ascontiguousarray(head.T),
    )


class _Tensors:
    """Tensors by name; each is taken once, so that memory is freed on the way."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._tensors = tensors

    def take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        tensor = self._tensors.pop(name, None)
        if tensor is None:
            raise ValueError(f"The weights have no tensor {name}.")
        if tensor.shape != shape:
            raise ValueError(
                f"Tensor {name} has shape {list(tensor.shape)}, config.json asks for {list(shape)}."
            )
        return tensor

    def join(
        self, names: list[str], inputs: int, outputs: list[int]
    ) -> tuple[Tensor, Tensor | None]:
        """Projections side by side: weight [in, all out], and bias [all out] if any has one."""
        sizes = list(zip(names, outputs, strict=True))
        weight = np.concatenate([self.take(f"{n}.weight", (size, inputs)) for n, size in sizes])
        bias = None
        if any(f"{name}.bias" in self._tensors for name in names):
            bias = np.concatenate([self._bias(name, size) for name, size in sizes])
        return np.ascontiguousarray(weight.T), bias

    def _bias(self, name: str, size: int) -> Tensor:
        if f"{name}.bias" not in self._tensors:
            return np.zeros(size, np.float32)
        return self.take(f"{name}.bias", (size,))


def _layer(source: _Tensors, config: LlamaConfig, prefix: str) -> Layer:
    attention, mlp = prefix + "self_attn.", prefix + "mlp."
    width, inner = config.width, config.inner_width
    queries, keys = config.heads * config.head_size, config.kv_heads * config.head_size
    names = [attention + "q_proj", attention + "k_proj", attention + "v_proj"]
    mixed, mixed_bias = source.join(names, width, [queries, keys, keys])
    output, output_bias = source.join([attention + "o_proj"], queries, [width])
    names = [mlp + "gate_proj", mlp + "up_proj"]
    gate_up, gate_up_bias = source.join(names, width, [inner, inner])
    down, down_bias = source.join([mlp + "down_proj"], inner, [width])
    return Layer(
        attention_norm=source.take(prefix + "input_layernorm.weight", (width,)),
        query_key_value=mixed,
        query_key_value_bias=mixed_bias,
        output=output,
        output_bias=output_bias,
        mlp_norm=source.take(prefix + "post_attention_layernorm.weight", (width,)),
        gate_up=gate_up,
        gate_up_bias=gate_up_bias,
        down=down,
        down_bias=down_bias,
    )
