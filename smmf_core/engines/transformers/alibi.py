"""Llama's layers with attention by distance (ALiBi) instead of rotated positions: Baichuan 13B.

Owns that attention; must not know a checkpoint's names. A cell's bias is its head's slope times its
column: columns of one row follow each other, so that differences are distances, whatever padding
stands before (Press et al. 2022, section 3).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaAttention


class AlibiForCausalLM(LlamaForCausalLM):  # type: ignore[misc]
    """A Llama whose attention sees distances."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model.rotary_emb = _NoRotation(config.hidden_size // config.num_attention_heads)
        for index, layer in enumerate(self.model.layers):
            layer.self_attn = AlibiAttention(config, index)


class AlibiAttention(LlamaAttention):  # type: ignore[misc]
    """Attention whose mask is a bias, one per head."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: Any = None,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        **rest: Any,
    ) -> Any:
        new = hidden_states.shape[1]
        past = 0 if past_key_values is None else past_key_values.get_seq_length(self.layer_idx)
        total = past + new if attention_mask is None else attention_mask.shape[-1]
        bias = self._distances(total, hidden_states)
        if attention_mask is None:
            attention_mask = torch.ones(new, total, dtype=torch.bool, device=bias.device)
            attention_mask = attention_mask.tril(total - new)[None, None]
        if attention_mask.dtype == torch.bool:
            bias = bias.masked_fill(~attention_mask, torch.finfo(bias.dtype).min)
        else:
            bias = bias + attention_mask
        return super().forward(hidden_states, position_embeddings, bias, past_key_values, **rest)

    def _distances(self, total: int, like: torch.Tensor) -> torch.Tensor:
        """[1, heads, 1, total]: zero at the newest column, so that near cells are exact."""
        heads = self.config.num_attention_heads
        slopes = torch.tensor(alibi_slopes(heads), device=like.device)
        columns = torch.arange(1 - total, 1, device=like.device)
        return (slopes[:, None, None] * columns)[None].to(like.dtype)


def alibi_slopes(heads: int) -> list[float]:
    """2^(-8 n / heads); beside a power of two, every second of those of twice that power."""
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2.0 ** (-8 * n / power) for n in range(1, power + 1)]
    return slopes + [2.0 ** (-4 * n / power) for n in range(1, 2 * (heads - power), 2)]


class _NoRotation(nn.Module):  # type: ignore[misc]
    """Cosines of one and sines of zero."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    def forward(
        self, hidden: torch.Tensor, position_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        shape = (*position_ids.shape, self._size)
        return hidden.new_ones(shape), hidden.new_zeros(shape)
