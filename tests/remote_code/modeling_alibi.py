"""A checkpoint's own model code, as it might come with Baichuan 2 13B.

Attention by distance (ALiBi, Press et al. 2022), one matrix for queries, keys and values, a head
whose rows have length 1.
"""

import math

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicCache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast


class BaichuanConfig(PreTrainedConfig):
    model_type = "baichuan"

    vocab_size: int = 125696
    hidden_size: int = 5120
    intermediate_size: int = 13696
    num_hidden_layers: int = 40
    num_attention_heads: int = 40
    model_max_length: int = 4096
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02


def slopes(heads):
    """One per head; beyond a power of two those between, as the paper has it."""
    power = 2 ** math.floor(math.log2(heads))
    base = [2 ** (-8 * (n + 1) / power) for n in range(power)]
    between = [2 ** (-4 * (2 * n + 1) / power) for n in range(heads - power)]
    return torch.tensor(base + between)


def visible(mask, rows, new, total):
    """Bias [rows, 1, new, total]: no later columns, no padding."""
    columns = torch.arange(total)
    seen = columns[None, :] <= torch.arange(total - new, total)[:, None]
    seen = seen[None, None].expand(rows, 1, new, total)
    if mask is not None:
        seen = seen & mask[:, None, None, :].bool()
    bias = torch.zeros(seen.shape)
    return bias.masked_fill(~seen, torch.finfo(torch.float32).min)


class Attention(nn.Module):
    def __init__(self, config, index):
        super().__init__()
        self.index, self.heads = index, config.num_attention_heads
        self.W_pack = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=False)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, hidden, bias, cache):
        rows, new, width = hidden.shape
        parts = self.W_pack(hidden).view(rows, new, 3, self.heads, -1).unbind(2)
        query, key, value = (part.transpose(1, 2) for part in parts)
        if cache is not None:
            key, value = cache.update(key, value, self.index)
        distance = slopes(self.heads)[:, None, None] * torch.arange(key.shape[2])
        mixed = functional.scaled_dot_product_attention(query, key, value, bias + distance)
        return self.o_proj(mixed.transpose(1, 2).reshape(rows, new, width))


class Mlp(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, hidden):
        return self.down_proj(functional.silu(self.gate_proj(hidden)) * self.up_proj(hidden))


class Layer(nn.Module):
    def __init__(self, config, index):
        super().__init__()
        width = config.hidden_size
        self.input_layernorm = nn.RMSNorm(width, config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(width, config.rms_norm_eps)
        self.self_attn = Attention(config, index)
        self.mlp = Mlp(width, config.intermediate_size)

    def forward(self, hidden, bias, cache):
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), bias, cache)
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class Model(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, n) for n in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, ids, bias, cache):
        hidden = self.embed_tokens(ids)
        for layer in self.layers:
            hidden = layer(hidden, bias, cache)
        return self.norm(hidden)


class BaichuanForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = BaichuanConfig
    base_model_prefix = "model"

    def __init__(self, config):
        super().__init__(config)
        self.model = Model(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.model.embed_tokens

    def forward(
        self, input_ids, attention_mask=None, past_key_values=None, use_cache=True, **unused
    ):
        cache = past_key_values
        if cache is None and use_cache:
            cache = DynamicCache()
        rows, new = input_ids.shape
        past = 0 if cache is None else cache.get_seq_length()
        hidden = self.model(input_ids, visible(attention_mask, rows, new, past + new), cache)
        logits = functional.linear(hidden, functional.normalize(self.lm_head.weight))
        return CausalLMOutputWithPast(logits=logits, past_key_values=cache)
