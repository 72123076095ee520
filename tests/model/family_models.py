"""Tiny models of every family: the architecture's own config class, random weights, a tokenizer of
the family's kind, written as a checkpoint folder that carries the name of a real one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from tiny import CORPUS, write_json
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

VOCAB = 420
_SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
}
_HEAD = {"head_dim": 16}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
_LATENT = {
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 2,
    "topk_group": 1,
    **_EXPERTS,
}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {}),
    "mistral": ("MistralConfig", {"sliding_window": 24}),
    "mixtral": ("MixtralConfig", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2": ("Qwen2Config", {}),
    "qwen3": ("Qwen3Config", _HEAD),
    "qwen3_moe": ("Qwen3MoeConfig", {**_HEAD, **_EXPERTS, "num_experts": 4}),
    "gemma": ("GemmaConfig", _HEAD),
    "gemma2": ("Gemma2Config", {**_HEAD, "sliding_window": 24, "query_pre_attn_scalar": 16}),
    "phi3": ("Phi3Config", {}),
    "deepseek_v2": ("DeepseekV2Config", {**_LATENT, "topk_method": "group_limited_greedy"}),
    "deepseek_v3": ("DeepseekV3Config", _LATENT),
    "glm": ("GlmConfig", _HEAD),
    "glm4": ("Glm4Config", _HEAD),
    "falcon": (
        "FalconConfig",
        {"num_kv_heads": 2, "new_decoder_architecture": True, "bias": False, "alibi": False},
    ),
}
"""Model type -> (config class, what it has beyond the sizes)."""


@dataclass(frozen=True)
class TinyModel:
    """`checkpoint` is the name of the folder: adapters know models by it."""

    family: str  # as the mission names it
    checkpoint: str
    architecture: str
    special: tuple[str, ...]  # special tokens: the first begins a text, the second ends it
    adapter: str
    tokenizer: str = "bytes"  # "bytes": byte-level BPE; "pieces": sentencepiece-like
    changes: dict[str, Any] = field(default_factory=dict)


def byte_level(special: tuple[str, ...]) -> Tokenizer:
    """BPE over bytes, as GPT-2, Llama 3, Qwen, DeepSeek, Falcon and GLM-4 have it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB - 20,
        special_tokens=list(special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def pieces(special: tuple[str, ...]) -> Tokenizer:
    """Pieces with a sign for spaces and bytes for the rest, as Llama 2, Mistral and Gemma."""
    vocab = {piece: id_ for id_, piece in enumerate(("<unk>", *special))}
    for byte in range(256):
        vocab[f"<0x{byte:02X}>"] = len(vocab)
    letters = [chr(code) for code in range(0x21, 0x7F)]
    for piece in ["\u2581", *letters, "\u4f60", "th", "he", "\u2581t", "\u2581a", "\u2581th"]:
        vocab[piece] = len(vocab)
    merges = [("t", "h"), ("h", "e"), ("\u2581", "t"), ("\u2581", "a"), ("\u2581t", "h")]
    raw = models.BPE(
        vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True
    )
    tokenizer = Tokenizer(raw)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(["<unk>", *special])
    return tokenizer


def write_model(tiny: TinyModel, parent: Path) -> Path:
    """The checkpoint folder; without a chat template, so that the adapter's is taken."""
    folder = parent / tiny.checkpoint
    class_name, own = ARCHITECTURES[tiny.architecture]
    tokenizer = (byte_level if tiny.tokenizer == "bytes" else pieces)(tiny.special)
    begin, end = (tokenizer.token_to_id(piece) for piece in tiny.special[:2])
    assert tokenizer.get_vocab_size() <= VOCAB
    sizes = {**_SIZES, **own, **tiny.changes, "bos_token_id": begin, "eos_token_id": end}
    config = getattr(transformers, class_name)(**sizes, pad_token_id=None)
    torch.manual_seed(5)
    model = transformers.AutoModelForCausalLM.from_config(config)
    unsettle(model)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": tiny.special[0], "eos_token": tiny.special[1]}
    write_json(folder / "tokenizer_config.json", names)
    return folder


@torch.no_grad()
def unsettle(model: torch.nn.Module) -> None:
    """Weights that are ones or zeros when new (norms, biases) become random, too.

    A small embedding lets a model whose head is the embedding say other tokens than its last.
    """
    for name, weight in model.named_parameters():
        if "embed" in name:
            weight *= 0.2
        if "norm" in name or "bias" in name:
            weight += 0.2 * torch.randn_like(weight)
