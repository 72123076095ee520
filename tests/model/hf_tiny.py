"""Tiny models of several architectures from transformers' own config classes, random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tiny import make_tokenizer

from smmf_core.config import Model, ModelConfig
from smmf_core.config.schema import Deployment, Optimization
from smmf_core.engines.transformers.engine import TransformersEngine, create

VOCABULARY = 320
STATE_IN_LAYERS = "recurrent gemma"
_SPREAD = 6.0  # times the library's initial weights: its own make texts that repeat one token
_SPECIAL: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    **_SPECIAL,
}
_DEEPSEEK: dict[str, Any] = {
    "num_key_value_heads": 6,
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "n_group": 2,
    "topk_group": 1,
    "n_shared_experts": 1,
}
_FALCON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "tie_word_embeddings": False,
    **_SPECIAL,
}
_LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [2.0, 3.0, 4.0, 5.0],
    "factor": 8.0,
    "original_max_position_embeddings": 64,
}
_YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 32,
}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", _SIZES),
    "llama yarn": ("Llama", {**_SIZES, "rope_parameters": _YARN, "attention_bias": True}),
    "llama eager": ("Llama", {**_SIZES, "attn_implementation": "eager"}),
    "gpt2": (
        "GPT2",
        {
            "vocab_size": VOCABULARY,
            "n_embd": 48,
            "n_layer": 3,
            "n_head": 6,
            "n_positions": 512,
            **_SPECIAL,
        },
    ),
    "mistral": ("Mistral", {**_SIZES, "sliding_window": 12}),
    "qwen2": ("Qwen2", {**_SIZES, "tie_word_embeddings": True}),
    "qwen2 half sliding": (
        "Qwen2",
        {**_SIZES, "use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3", {**_SIZES, "head_dim": 16}),
    "gemma2": (
        "Gemma2",
        {**_SIZES, "head_dim": 8, "sliding_window": 11, "query_pre_attn_scalar": 8},
    ),
    "phi3": ("Phi3", {**_SIZES, "sliding_window": 13}),
    "phi3 longrope": ("Phi3", {**_SIZES, "rope_parameters": _LONG_ROPE}),
    "falcon": ("Falcon", {**_FALCON, "alibi": False, "multi_query": True, "bias": False}),
    "falcon alibi": (
        "Falcon",
        {**_FALCON, "alibi": True, "multi_query": False, "parallel_attn": False},
    ),
    "bloom": (
        "Bloom",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 48,
            "n_layer": 3,
            "n_head": 6,
            "tie_word_embeddings": False,
            **_SPECIAL,
        },
    ),
    "mixtral": ("Mixtral", {**_SIZES, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen3 moe": (
        "Qwen3Moe",
        {
            **_SIZES,
            "head_dim": 8,
            "moe_intermediate_size": 32,
            "num_experts": 4,
            "num_experts_per_tok": 2,
        },
    ),
    "qwen3 moe in a window": (  # that the cache is not told of
        "Qwen3Moe",
        {
            **_SIZES,
            "head_dim": 8,
            "moe_intermediate_size": 32,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "use_sliding_window": True,
            "sliding_window": 9,
            "layer_types": ["full_attention"] * 3,
        },
    ),
    "qwen2 moe": (
        "Qwen2Moe",
        {
            **_SIZES,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 48,
            "num_experts": 4,
            "num_experts_per_tok": 2,
        },
    ),
    "deepseek v2": ("DeepseekV2", {**_SIZES, **_DEEPSEEK}),
    "deepseek v3": ("DeepseekV3", {**_SIZES, **_DEEPSEEK}),
    "llama4 in chunks": (
        "Llama4",
        {
            **_SIZES,
            "head_dim": 8,
            "attention_chunk_size": 16,
            "num_local_experts": 2,
            "intermediate_size_mlp": 64,
        },
    ),
    "mamba": (
        "Mamba",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 48,
            "num_hidden_layers": 2,
            "state_size": 8,
            **_SPECIAL,
        },
    ),
    STATE_IN_LAYERS: (
        "RecurrentGemma",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_hidden_layers": 3,
            "num_attention_heads": 6,
            "lru_width": 48,
            **_SPECIAL,
        },
    ),
    "lfm2": ("Lfm2", {**_SIZES, "layer_types": ["conv", "full_attention", "conv"]}),
}


def make_hf_model(case: str, seed: int = 0) -> Any:
    """A model of the library, in float32, whose greedy texts vary."""
    name, values = CASES[case]
    config_class = getattr(transformers, f"{name}TextConfig", None)
    config = (config_class or getattr(transformers, f"{name}Config"))(**values)
    head = getattr(transformers, f"{name}ForCausalLM", None)
    torch.manual_seed(seed)
    model = (head or transformers.GPT2LMHeadModel)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(_SPREAD)
    return model


def write_hf_model(folder: Path, model: Any) -> Path:
    model.save_pretrained(folder)
    make_tokenizer(VOCABULARY).save(str(folder / "tokenizer.json"))
    return folder


def open_hf_engine(folder: Path, attention: str = "", **engine: Any) -> TransformersEngine:
    config = ModelConfig(
        model=Model(name="tiny", backend="transformers", path=str(folder)),
        deployment=Deployment(device="cpu"),
        optimization=Optimization(dtype="float32", attention=attention),
        engine=engine,
    )
    opened = create(config)
    assert isinstance(opened, TransformersEngine)
    opened.load(lambda done: None)
    return opened


def greedy(model: Any, prompt: list[int], tokens: int) -> list[int]:
    """What the library's own loop makes of one prompt alone, its end-of-text token not heeded."""
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        made = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
    return list(made[0, len(prompt) :].tolist())


def prompts(*lengths: int, seed: int = 1) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [[0, *random.integers(3, 300, length - 1).tolist()] for length in lengths]
