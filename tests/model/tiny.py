"""Makes tiny Llama-family model folders with random weights: numpy, safetensors, tokenizers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
CORPUS = [
    "the quick brown fox jumps over the lazy dog and 12345 small green birds sing in old trees",
    "caf\u00e9 na\u00efve \u4f60\u597d \U0001f600 e\u0301 tabs\tand\nlines; def f(x): return x + 1",
]


def make_tokenizer(vocab_size: int = 320) -> Tokenizer:
    """A byte-level BPE tokenizer with three special tokens and one added plain one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens(["[plain]"])
    bos = tokenizer.token_to_id(BOS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, bos)]
    )
    return tokenizer


def make_model(
    folder: Path, *, seed: int = 0, dtype: str = "float32", bias: bool = False, **changes: Any
) -> Path:
    """Write a whole model folder; `changes` go into config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "attention_bias": bias,
        "vocab_size": tokenizer.get_vocab_size(),
        **changes,
    }
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", {"bos_token_id": 0, "eos_token_id": 1})
    names = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATE, **names}
    write_json(folder / "tokenizer_config.json", settings)
    write_weights(folder / "model.safetensors", random_tensors(config, seed, bias), dtype)
    return folder


def random_tensors(config: dict[str, Any], seed: int, bias: bool) -> dict[str, np.ndarray]:
    """Weights large enough that greedy text is not constant."""
    random = np.random.default_rng(seed)
    width, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    shapes = {"model.embed_tokens.weight": (vocab, width), "model.norm.weight": (width,)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocab, width)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        shapes[prefix + "input_layernorm.weight"] = (width,)
        shapes[prefix + "post_attention_layernorm.weight"] = (width,)
        attention = {"q_proj": queries, "k_proj": keys, "v_proj": keys}
        for name, size in attention.items():
            shapes[f"{prefix}self_attn.{name}.weight"] = (size, width)
            if bias:
                shapes[f"{prefix}self_attn.{name}.bias"] = (size,)
        shapes[prefix + "self_attn.o_proj.weight"] = (width, queries)
        shapes[prefix + "mlp.gate_proj.weight"] = (inner, width)
        shapes[prefix + "mlp.up_proj.weight"] = (inner, width)
        shapes[prefix + "mlp.down_proj.weight"] = (width, inner)
    tensors = {}
    for name, shape in shapes.items():
        values = random.standard_normal(shape) * 0.25
        tensors[name] = (1 + values if "norm" in name else values).astype(np.float32)
    return tensors


def write_weights(path: Path, tensors: dict[str, np.ndarray], dtype: str) -> None:
    """Write safetensors as float32, float16 or bfloat16 (by truncation)."""
    if dtype != "bfloat16":
        save_file({name: t.astype(dtype) for name, t in tensors.items()}, path)
        return
    header: dict[str, Any] = {}
    data = b""
    for name, tensor in tensors.items():
        raw = (tensor.view(np.uint32) >> 16).astype("<u2").tobytes()
        span = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": span}
        data += raw
    head = json.dumps(header).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + data)


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
