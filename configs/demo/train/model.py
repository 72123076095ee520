"""Owns the shape of the demo model and the files of its folder; it must not know how the model is trained."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

CONTEXT = 2048
BOS_ID, END_ID, PAD_ID = 0, 1, 2
ROPE_THETA = 10000.0
WRAP_UP_AFTER = 48  # tokens of an answer in JSON: the model does not find its end by itself


def build(vocab: int) -> LlamaForCausalLM:
    """A fresh Llama of about 3.5 million parameters."""
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        bos_token_id=BOS_ID,
        eos_token_id=END_ID,
        pad_token_id=PAD_ID,
    )
    return LlamaForCausalLM(config)


def export(model: LlamaForCausalLM, folder: Path) -> None:
    """Writes config.json, generation_config.json and the weights as float16; the tied output layer is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.detach().to(torch.float16).contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    config = model.config.to_dict()
    keep = (
        "attention_bias",
        "attention_dropout",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "head_dim",
        "hidden_act",
        "hidden_size",
        "initializer_range",
        "intermediate_size",
        "max_position_embeddings",
        "mlp_bias",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "rms_norm_eps",
        "tie_word_embeddings",
        "use_cache",
        "vocab_size",
    )
    written = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float16",
        "torch_dtype": "float16",
        "rope_theta": ROPE_THETA,
        "rope_parameters": {"rope_theta": ROPE_THETA, "rope_type": "default"},
    }
    written |= {key: config[key] for key in keep}
    _write(folder / "config.json", written)
    _write(
        folder / "generation_config.json",
        {
            "bos_token_id": BOS_ID,
            "eos_token_id": [END_ID],
            "pad_token_id": PAD_ID,
            "wrap_up_after": WRAP_UP_AFTER,
        },
    )


def _write(path: Path, data: dict[str, object]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
