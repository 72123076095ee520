"""One step of the answers through a decoder of Llama's shape: its arithmetic and nothing else.

Most of a small model's step in the library on a CPU is calls: a layer's forty operations, modules
around them, a mask and rotations worked out anew. Here a layer is half as many operations, with the
products of query, key and value in one, and rotations looked up. Owns that arithmetic, of one
column of every row; must not decide whether it may be used: a trial at load does (probe.py), and
every other pass and every other architecture runs the library's code.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from smmf_core.engines.transformers.cache import KvStore
from smmf_core.engines.transformers.joint import Joint, JointPart

_LAYERS = ("Llama", "Mistral", "Mixtral", "Qwen2", "Qwen2Moe", "Qwen3", "Qwen3Moe")
_STATIC_ROTATIONS = ("default", "linear", "llama3", "yarn")  # others depend on the text's length
_FIRST_TABLE = 1024  # positions; it is doubled when a text grows beyond


class LeanStep:
    """Called like a Model's pass of one column. Raises what torch raises."""

    def __init__(self, model: Any) -> None:
        base, heads = model.model, model.lm_head
        self._embedding = base.embed_tokens.weight
        self._layers = [_Layer(layer) for layer in base.layers[: base.config.num_hidden_layers]]
        self._norm, self._head = base.norm.forward, heads.forward
        self._rotations = _Rotations(base.rotary_emb, self._embedding)

    def __call__(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor | None,
        mask: torch.Tensor | None,
        store: KvStore,
    ) -> torch.Tensor:
        """Logits [rows, 1, vocabulary] of ids [rows, 1]. `positions` [rows, 1], or None: all stand
        at the cache's length. `mask` [rows, 1, 1, seen]: true or zero where a key is seen."""
        span = store.span
        cos, sin = self._rotations.at(positions, span.end - span.first)
        if mask is not None and mask.dtype == torch.bool:  # sdpa would do so in every layer
            mask = torch.zeros_like(mask, dtype=cos.dtype).masked_fill_(~mask, float("-inf"))
        hidden = torch.embedding(self._embedding, ids[:, 0])
        for layer, cached in zip(self._layers, store.layers, strict=True):
            hidden = layer.step(hidden, cos, sin, mask, cached)
        logits: torch.Tensor = self._head(self._norm(hidden))
        return logits[:, None]


class _Layer:
    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._before, self._after = layer.input_layernorm, layer.post_attention_layernorm
        self._qkv: Joint = attention.q_proj.joint
        self._norms = (getattr(attention, "q_norm", None), getattr(attention, "k_norm", None))
        self._out = attention.o_proj.forward
        self._scaling: float = attention.scaling
        size: int = attention.head_dim
        queries, keys = (attention.q_proj.out_features, attention.k_proj.out_features)
        self._heads = (queries // size, keys // size, size)
        self._mlp = mlp
        self._gate: Joint | None = None
        if isinstance(getattr(mlp, "gate_proj", None), JointPart):
            self._gate, self._act, self._down = mlp.gate_proj.joint, mlp.act_fn, mlp.down_proj

    def step(
        self,
        hidden: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        mask: torch.Tensor | None,
        cached: Any,
    ) -> torch.Tensor:
        """`hidden` [rows, size of the model]."""
        hidden = hidden + self._attend(self._before.forward(hidden), cos, sin, mask, cached)
        rows = self._after.forward(hidden)
        if self._gate is None:  # experts, or products too large to be one
            return hidden + self._mlp(rows[:, None])[:, 0]
        gate, up = self._gate.layer.forward(rows).chunk(2, -1)
        return hidden + self._down.forward(self._act.forward(gate) * up)

    def _attend(
        self,
        rows: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        mask: torch.Tensor | None,
        cached: Any,
    ) -> torch.Tensor:
        queries, keys, size = self._heads
        count, rotated = len(rows), queries + keys
        heads = self._qkv.layer.forward(rows).view(count, rotated + keys, size)
        turned = heads[:, :rotated]
        query_norm, key_norm = self._norms
        if query_norm is not None and key_norm is not None:
            parts = (query_norm.forward(turned[:, :queries]), key_norm.forward(turned[:, queries:]))
            turned = torch.cat(parts, 1)
        turned = turned * cos + turned.roll(size // 2, -1) * sin
        seen, values = cached.update(turned[:, queries:, None], heads[:, rotated:, None])
        asked = turned[:, :queries].view(count, keys, queries // keys, size)
        found = scaled_dot_product_attention(
            asked, seen, values, attn_mask=mask, scale=self._scaling
        )
        out: torch.Tensor = self._out(found.reshape(count, queries * size))
        return out


class _Rotations:
    """Cosines and sines by position, as the library's module computes them. The sine of a head's
    first half is negative, so that to rotate is to roll: no half is negated by itself."""

    def __init__(self, module: Any, like: torch.Tensor) -> None:
        self._module, self._like = module, like
        self._fill(_FIRST_TABLE)

    def at(self, positions: torch.Tensor | None, last: int) -> tuple[torch.Tensor, torch.Tensor]:
        """`last`: the largest of them, or the only one."""
        if last >= len(self._cos):
            self._fill(2 * last)
        places = last if positions is None else positions
        return self._cos[places], self._sin[places]

    def _fill(self, count: int) -> None:
        places = torch.arange(count, device=self._like.device)[None]
        cos, sin = self._module(self._like, position_ids=places)
        self._cos, self._sin = cos[0], sin[0].clone()
        self._sin[:, : self._sin.shape[1] // 2].neg_()


def lean_step(model: Any) -> LeanStep | None:
    """None for a model of another shape, and where its layers are not this CPU's own."""
    layers = getattr(getattr(model, "model", None), "layers", ())
    names = {f"{name}DecoderLayer" for name in _LAYERS}
    kinds = {type(layer) for layer in layers}
    if not all(k.__name__ in names and k.__module__[:13] == "transformers." for k in kinds):
        return None
    try:
        rotation = model.model.rotary_emb.rope_type
        is_joint = all(isinstance(layer.self_attn.q_proj, JointPart) for layer in layers)
        if model.config._attn_implementation != "sdpa" or rotation not in _STATIC_ROTATIONS:
            return None
        return LeanStep(model) if layers and is_joint else None
    except AttributeError:  # another version of the library
        return None
