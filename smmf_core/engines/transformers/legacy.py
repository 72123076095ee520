"""Architectures that transformers no longer carries, on the classes of those that it does.

InternLM, Baichuan, Qwen 1 and ChatGLM 2 to GLM-4 were published with Python files for older
versions of transformers. Their arithmetic is that of Llama, Qwen 2 and GLM; only the keys of
config.json and the tensors' names and packing differ. (Baichuan 13B and ChatGLM 1 have arithmetic
of their own, which is here, too.) So no code of a checkpoint has to run.

Owns the keys, names and packings; must not read weights itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    GlmConfig,
    GlmForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import (
    Chunk,
    ConversionOps,
    Split,
    WeightConverter,
    WeightRenaming,
)

from smmf_core.engines.transformers.alibi import AlibiForCausalLM
from smmf_core.engines.transformers.chatglm import ChatGlmConfig, ChatGlmForCausalLM

Json = dict[str, Any]

_PROJECTIONS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_ROPE_BASE = 10000.0
_ROTARY = [r"inv_freq$"]  # old checkpoints hold the rotations' frequencies, too


class InternLMForCausalLM(LlamaForCausalLM):  # type: ignore[misc]
    """InternLM 1: Llama with biases in the attention."""

    _keys_to_ignore_on_load_unexpected = _ROTARY


class InternLM2ForCausalLM(LlamaForCausalLM):  # type: ignore[misc]
    """InternLM 2: Llama with one attention matrix, grouped by key-value head."""

    _keys_to_ignore_on_load_unexpected = _ROTARY


class BaichuanForCausalLM(LlamaForCausalLM):  # type: ignore[misc]
    """Baichuan 7B: Llama with one attention matrix."""

    _keys_to_ignore_on_load_unexpected = _ROTARY


class Baichuan2ForCausalLM(BaichuanForCausalLM):
    """Baichuan 2 7B: its head's rows are used at length 1."""


class BaichuanAlibiForCausalLM(AlibiForCausalLM):
    """Baichuan 13B: as 7B, with attention by distance."""

    _keys_to_ignore_on_load_unexpected = [*_ROTARY, r"alibi_mask$"]  # noqa: RUF012


class Baichuan2AlibiForCausalLM(BaichuanAlibiForCausalLM):
    """Baichuan 2 13B."""


class QwenForCausalLM(Qwen2ForCausalLM):  # type: ignore[misc]
    """Qwen 1: Qwen 2 with one attention matrix and other names."""

    _keys_to_ignore_on_load_unexpected = _ROTARY


class ChatGLMForCausalLM(GlmForCausalLM):  # type: ignore[misc]
    """ChatGLM 2, ChatGLM 3 and GLM-4 as first published: GLM with one attention matrix."""

    _keys_to_ignore_on_load_unexpected = _ROTARY


@dataclass(frozen=True)
class Legacy:
    model: Any  # a class of transformers
    config: Any  # its configuration


def legacy_model(config: Json) -> Legacy | None:
    """What runs the model of a config.json; None when transformers knows it by itself."""
    translate = _TRANSLATE.get(str(config.get("model_type")))
    return None if translate is None else translate(config)


def _internlm(config: Json) -> Legacy:
    # Its dynamic scaling of positions begins beyond max_position_embeddings: not served.
    own = _without(config, "rope_scaling", "rotary", "bias")
    own |= {"attention_bias": config.get("bias", True)}
    own |= _rope((config.get("rotary") or {}).get("base"))
    return Legacy(InternLMForCausalLM, LlamaConfig(**own))


def _internlm2(config: Json) -> Legacy:
    own = _without(config, "rope_scaling", "bias") | {"attention_bias": config.get("bias", False)}
    return Legacy(InternLM2ForCausalLM, LlamaConfig(**own, **_rope(config.get("rope_theta"))))


def _baichuan(config: Json) -> Legacy:
    """The 13B models weigh by distance and so have no max_position_embeddings."""
    is_second = config.get("vocab_size") == _BAICHUAN2_VOCAB or "z_loss_weight" in config
    own = _without(config)
    if "max_position_embeddings" in config:
        model: Any = Baichuan2ForCausalLM if is_second else BaichuanForCausalLM
    else:
        model = Baichuan2AlibiForCausalLM if is_second else BaichuanAlibiForCausalLM
        own["max_position_embeddings"] = config["model_max_length"]
    return Legacy(model, LlamaConfig(**own, **_rope(None)))


def _qwen(config: Json) -> Legacy:
    own = _without(config, "intermediate_size", "seq_length", "kv_channels") | {
        "intermediate_size": config["intermediate_size"] // 2,
        "num_key_value_heads": config["num_attention_heads"],
        "head_dim": config.get("kv_channels"),
        "max_position_embeddings": config.get("seq_length", 8192),
        "rms_norm_eps": config.get("layer_norm_epsilon", 1e-6),
        "hidden_act": "silu",
    }
    return Legacy(QwenForCausalLM, Qwen2Config(**own, **_rope(config.get("rotary_emb_base"))))


def _chatglm(config: Json) -> Legacy:
    if "multi_query_group_num" not in config:
        return _chatglm1(config)
    groups = config["multi_query_group_num"] if config.get("multi_query_attention") else None
    own = _without(config) | {
        "vocab_size": config["padded_vocab_size"],
        "num_hidden_layers": config["num_layers"],
        "intermediate_size": config["ffn_hidden_size"],
        "num_key_value_heads": groups or config["num_attention_heads"],
        "head_dim": config["kv_channels"],
        "attention_bias": config.get("add_qkv_bias", False),
        "max_position_embeddings": config["seq_length"],
        "rms_norm_eps": config["layernorm_epsilon"],
        "pad_token_id": config.get("pad_token_id"),
    }
    rope = _rope(_ROPE_BASE * config.get("rope_ratio", 1))
    rope["rope_parameters"]["partial_rotary_factor"] = 0.5
    return Legacy(ChatGLMForCausalLM, GlmConfig(**own, **rope))


def _chatglm1(config: Json) -> Legacy:
    own = _without(config) | {
        "num_hidden_layers": config["num_layers"],
        "intermediate_size": config["inner_hidden_size"],
        "layer_norm_eps": config["layernorm_epsilon"],
        "max_position_embeddings": config["max_sequence_length"],
    }
    return Legacy(ChatGlmForCausalLM, ChatGlmConfig(**own))


_BAICHUAN2_VOCAB = 125696
_TRANSLATE: dict[str, Callable[[Json], Legacy]] = {
    "internlm": _internlm,
    "internlm2": _internlm2,
    "baichuan": _baichuan,
    "qwen": _qwen,
    "chatglm": _chatglm,
}
_FOREIGN = ("model_type", "auto_map", "architectures", "rope_theta", "transformers_version")


def _without(config: Json, *keys: str) -> Json:
    """config.json without what would contradict the native class."""
    return {key: value for key, value in config.items() if key not in (*_FOREIGN, *keys)}


def _rope(base: Any) -> Json:
    parameters = {"rope_type": "default", "rope_theta": float(base or _ROPE_BASE)}
    return {"rope_parameters": parameters}


class _SplitGroups(ConversionOps):  # type: ignore[misc]
    """[groups x (queries + key + value) x size, width] -> queries, keys, values of all groups."""

    def convert(
        self, input_dict: Json, source_patterns: list[str], target_patterns: list[str], **rest: Any
    ) -> dict[str, torch.Tensor]:
        tensor, config = _single(input_dict).detach(), rest["config"]
        groups, heads = config.num_key_value_heads, config.num_attention_heads
        size = config.hidden_size // heads
        packed = tensor.view(groups, heads // groups + 2, size, *tensor.shape[1:])
        parts = (packed[:, :-2], packed[:, -2:-1], packed[:, -1:])
        flat = [part.reshape(-1, *tensor.shape[1:]).contiguous() for part in parts]
        return dict(zip(target_patterns, flat, strict=True))


class _UnitRows(ConversionOps):  # type: ignore[misc]
    """Rows at length 1."""

    def convert(
        self, input_dict: Json, source_patterns: list[str], target_patterns: list[str], **rest: Any
    ) -> dict[str, torch.Tensor]:
        return {target_patterns[0]: torch.nn.functional.normalize(_single(input_dict).detach())}


def _single(tensors: Json) -> torch.Tensor:
    (value,) = tensors.values()
    tensor: torch.Tensor = value[0] if isinstance(value, list) else value
    return tensor


def _attention(packed: str, split: ConversionOps, kinds: tuple[str, ...]) -> list[WeightConverter]:
    return [
        WeightConverter(f"{packed}.{kind}", [f"{name}.{kind}" for name in _PROJECTIONS], [split])
        for kind in kinds
    ]


def _names(pairs: dict[str, str]) -> list[WeightRenaming]:
    return [WeightRenaming(old, new) for old, new in pairs.items()]


_BAICHUAN = _attention("self_attn.W_pack", Chunk(0), ("weight",))
_BAICHUAN2 = [*_BAICHUAN, WeightConverter("lm_head.weight", "lm_head.weight", [_UnitRows()])]
_CONVERSIONS: dict[type, list[Any]] = {
    InternLM2ForCausalLM: [
        *_names(
            {
                r"model\.tok_embeddings": "model.embed_tokens",
                r"\.attention_norm\.": ".input_layernorm.",
                r"\.ffn_norm\.": ".post_attention_layernorm.",
                r"\.attention\.wo\.": ".self_attn.o_proj.",
                r"\.feed_forward\.w1\.": ".mlp.gate_proj.",
                r"\.feed_forward\.w2\.": ".mlp.down_proj.",
                r"\.feed_forward\.w3\.": ".mlp.up_proj.",
                r"^output\.": "lm_head.",
            }
        ),
        *_attention("attention.wqkv", _SplitGroups(), ("weight", "bias")),
    ],
    BaichuanForCausalLM: _BAICHUAN,
    Baichuan2ForCausalLM: _BAICHUAN2,
    BaichuanAlibiForCausalLM: _BAICHUAN,
    Baichuan2AlibiForCausalLM: _BAICHUAN2,
    QwenForCausalLM: [
        *_names(
            {
                r"transformer\.wte\.": "model.embed_tokens.",
                r"transformer\.ln_f\.": "model.norm.",
                r"transformer\.h\.": "model.layers.",
                r"\.ln_1\.": ".input_layernorm.",
                r"\.ln_2\.": ".post_attention_layernorm.",
                r"\.attn\.c_proj\.": ".self_attn.o_proj.",
                r"\.mlp\.w1\.": ".mlp.up_proj.",
                r"\.mlp\.w2\.": ".mlp.gate_proj.",
                r"\.mlp\.c_proj\.": ".mlp.down_proj.",
            }
        ),
        *_attention("attn.c_attn", Chunk(0), ("weight", "bias")),
    ],
    ChatGLMForCausalLM: [
        *_names(
            {
                r"transformer\.embedding\.word_embeddings\.": "model.embed_tokens.",
                r"transformer\.encoder\.final_layernorm\.": "model.norm.",
                r"transformer\.encoder\.layers\.": "model.layers.",
                r"transformer\.output_layer\.": "lm_head.",
                r"\.self_attention\.dense\.": ".self_attn.o_proj.",
                r"\.mlp\.dense_h_to_4h\.": ".mlp.gate_up_proj.",
                r"\.mlp\.dense_4h_to_h\.": ".mlp.down_proj.",
            }
        ),
        *_attention("self_attention.query_key_value", Split(0), ("weight", "bias")),
    ],
}
for _class, _conversion in _CONVERSIONS.items():
    register_checkpoint_conversion_mapping(_class.__name__, _conversion, overwrite=True)
