"""ChatGLM 1 (6B), which transformers never carried: GLM's blocks, a prompt read in both directions.

Owns that architecture; must not know how it is batched. As published with the paper (Du et al.
2022, GLM) and its first checkpoint: every token of the prompt sees all of it up to <sop>; what
follows sees what is before it. Positions are counted twice: the prompt's own, at which an answer
stands still, and the answer's own, which is zero in the prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicCache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

_ROTATION_BASE = 10000.0


class ChatGlmConfig(PreTrainedConfig):  # type: ignore[misc]
    """Sizes under the names of transformers."""

    model_type = "chatglm"

    vocab_size: int = 130528
    hidden_size: int = 4096
    intermediate_size: int = 16384
    num_hidden_layers: int = 28
    num_attention_heads: int = 32
    layer_norm_eps: float = 1e-5
    max_position_embeddings: int = 2048
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False


@dataclass(slots=True)
class Places:
    """Where all columns of a pass stand: [rows, columns] each."""

    is_visible: torch.Tensor  # else it is padding
    is_prompt: torch.Tensor  # up to <sop>
    first: torch.Tensor  # positions of the prompt
    second: torch.Tensor  # positions of the answer


class Attention(nn.Module):  # type: ignore[misc]
    """Keys are cached as they are, with one more channel that tells whether a token is of the
    prompt: all positions follow from it, whatever rows are in a pass."""

    def __init__(self, config: ChatGlmConfig, index: int) -> None:
        super().__init__()
        width = config.hidden_size
        self._index, self._heads = index, config.num_attention_heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.dense = nn.Linear(width, width)

    def forward(
        self, hidden: torch.Tensor, is_prompt: torch.Tensor, mask: torch.Tensor | None, cache: Any
    ) -> torch.Tensor:
        rows, new, width = hidden.shape
        packed = self.query_key_value(hidden).view(rows, new, self._heads, -1).transpose(1, 2)
        query, key, value = packed.chunk(3, dim=-1)
        mark = is_prompt[:, None, :, None].expand(rows, self._heads, new, 1)
        key, value = cache.update(torch.cat([key, mark.to(key.dtype)], -1), value, self._index)
        key, marks = key[..., :-1], key[:, 0, :, -1] > 0.5
        places = _places(marks, mask)
        seen = _seen(places, new)
        query = _rotate(query, places.first[:, -new:], places.second[:, -new:])
        key = _rotate(key, places.first, places.second)
        mixed = functional.scaled_dot_product_attention(query, key, value, seen)
        projected: torch.Tensor = self.dense(mixed.transpose(1, 2).reshape(rows, new, width))
        return projected


class Mlp(nn.Module):  # type: ignore[misc]
    def __init__(self, config: ChatGlmConfig) -> None:
        super().__init__()
        self.dense_h_to_4h = nn.Linear(config.hidden_size, config.intermediate_size)
        self.dense_4h_to_h = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        inner = functional.gelu(self.dense_h_to_4h(hidden), approximate="tanh")
        projected: torch.Tensor = self.dense_4h_to_h(inner)
        return projected


class Block(nn.Module):  # type: ignore[misc]
    """What is added to is the normalised input, weighted by the depth (DeepNorm)."""

    def __init__(self, config: ChatGlmConfig, index: int) -> None:
        super().__init__()
        width, epsilon = config.hidden_size, config.layer_norm_eps
        self._weight = (2 * config.num_hidden_layers) ** 0.5
        self.input_layernorm = nn.LayerNorm(width, epsilon)
        self.attention = Attention(config, index)
        self.post_attention_layernorm = nn.LayerNorm(width, epsilon)
        self.mlp = Mlp(config)

    def forward(
        self, hidden: torch.Tensor, is_prompt: torch.Tensor, mask: torch.Tensor | None, cache: Any
    ) -> torch.Tensor:
        normed = self.input_layernorm(hidden)
        hidden = normed * self._weight + self.attention(normed, is_prompt, mask, cache)
        normed = self.post_attention_layernorm(hidden)
        added: torch.Tensor = normed * self._weight + self.mlp(normed)
        return added


class Transformer(nn.Module):  # type: ignore[misc]
    def __init__(self, config: ChatGlmConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, n) for n in range(config.num_hidden_layers))
        self.final_layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)


class ChatGlmForCausalLM(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """The first pass over a row must hold its whole prompt."""

    config_class = ChatGlmConfig
    base_model_prefix = "transformer"
    reads_prompt_whole = True  # for whoever batches: no part of a prompt stands by itself
    _supports_sdpa = True
    _no_split_modules = ["Block"]  # noqa: RUF012
    _keys_to_ignore_on_load_unexpected = [r"inv_freq$"]  # noqa: RUF012

    def __init__(self, config: ChatGlmConfig) -> None:
        super().__init__(config)
        self.transformer = Transformer(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.transformer.word_embeddings

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool = True,
        logits_to_keep: int = 0,
        **_unused: Any,
    ) -> CausalLMOutputWithPast:
        """`attention_mask`: [rows, columns], or [rows, 1, 1, columns] for one new column."""
        cache = DynamicCache() if past_key_values is None else past_key_values
        mask = attention_mask
        if mask is not None:
            mask = (mask[:, 0, -1] if mask.dim() == 4 else mask).bool()
        if cache.get_seq_length() > 0:
            is_prompt = torch.zeros_like(input_ids, dtype=torch.bool)
        else:
            is_prompt = (input_ids == self.config.bos_token_id).cumsum(-1) == 0
        hidden = self.transformer.word_embeddings(input_ids)
        for layer in self.transformer.layers:
            hidden = layer(hidden, is_prompt, mask, cache)
        hidden = self.transformer.final_layernorm(hidden[:, -logits_to_keep:])
        return CausalLMOutputWithPast(
            logits=self.lm_head(hidden), past_key_values=cache if use_cache else None
        )


def _places(is_prompt: torch.Tensor, mask: torch.Tensor | None) -> Places:
    visible = torch.ones_like(is_prompt) if mask is None else mask
    is_prompt = is_prompt & visible
    index = visible.cumsum(-1) - 1
    length = is_prompt.sum(-1, keepdim=True)
    first = torch.where(is_prompt, index, length - 1)  # an answer stands at its prompt's [gMASK]
    second = torch.where(is_prompt, 0, index - length + 1)
    return Places(visible, is_prompt, first.clamp_(min=0), second.clamp_(min=0))


def _seen(places: Places, new: int) -> torch.Tensor:
    """[rows, 1, new, columns]: the prompt by all, an answer by what follows."""
    total = places.is_visible.shape[1]
    earlier = torch.ones(new, total, dtype=torch.bool, device=places.first.device)
    seen = earlier.tril(total - new)[None] | places.is_prompt[:, None]
    return (seen & places.is_visible[:, None])[:, None]


def _rotate(vectors: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The halves of [rows, heads, columns, size], each by its own positions."""
    halves = vectors.chunk(2, dim=-1)
    return torch.cat([_rotate_half(h, p) for h, p in zip(halves, (first, second), strict=True)], -1)


def _rotate_half(vectors: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    size = vectors.shape[-1]
    steps = torch.arange(0, size, 2, device=vectors.device) / size
    angles = positions[:, None, :, None] * _ROTATION_BASE**-steps
    angles = torch.cat([angles, angles], -1)
    left, right = vectors.chunk(2, dim=-1)
    turned = torch.cat([-right, left], -1)
    return vectors * angles.cos().to(vectors.dtype) + turned * angles.sin().to(vectors.dtype)
