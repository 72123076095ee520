"""Loads an embedding or rerank model and its tokenizer from a folder, in transformers' classes.

Owns the choice of class and the model's limits; must not compute.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from smmf_core.config import ModelConfig
from smmf_core.config.engine_options import EmbedOptions
from smmf_core.engines.transformers.joint import join
from smmf_core.engines.transformers.onednn import pack_layers
from smmf_core.engines.transformers.place import choose_attention, choose_dtype


def load_model(
    folder: Path, config: ModelConfig, options: EmbedOptions, device: torch.device
) -> Any:
    """The transformer (task embed) or the cross-encoder (task rerank), ready to compute."""
    import transformers as hf

    refuse_unsupported(config)
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no config.json")
    trust = {"trust_remote_code": options.trust_remote_code}
    found = hf.AutoConfig.from_pretrained(folder, **trust)
    if config.model.task == "rerank":
        kind: Any = hf.AutoModelForSequenceClassification
    elif getattr(found, "is_encoder_decoder", False):
        kind = hf.AutoModelForTextEncoding
    else:
        kind = hf.AutoModel
    stored = getattr(found, "dtype", None) or torch.float32  # old configs do not say it
    model = kind.from_pretrained(
        folder,
        dtype=choose_dtype(config.optimization.dtype, stored, device),
        attn_implementation=choose_attention(config.optimization.attention),
        **trust,
    )
    model = model.to(device).eval()
    if device.type == "cpu":
        join(model)
        pack_layers(model)
    return model


def load_tokenizer(folder: Path, options: EmbedOptions) -> Any:
    import transformers as hf

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the engine uses the cores
    return hf.AutoTokenizer.from_pretrained(folder, trust_remote_code=options.trust_remote_code)


def context_length(model: Any, tokenizer: Any, wanted: int, recipe_length: int | None) -> int:
    """The most tokens of one text: the user's wish or what the files say, within what the model has
    positions for. Raises ValueError for a wish above that."""
    room = positions(model)
    if wanted and room and wanted > room:
        raise ValueError(f"max_model_len {wanted} is above the model's {room} positions")
    said = [recipe_length, room, int(min(tokenizer.model_max_length, 1 << 30))]
    return wanted or min(length for length in said if length)


def positions(model: Any) -> int | None:
    """None where they are not bounded. RoBERTa's kind counts its own from behind the padding id."""
    room = getattr(model.config, "max_position_embeddings", None)
    if not room or room < 0:
        return None
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            before = 0 if module.padding_idx is None else module.padding_idx + 1
            return int(module.num_embeddings) - before
    return int(room)


def refuse_unsupported(config: ModelConfig) -> None:
    """Raises ValueError for settings that would otherwise be ignored."""
    options = config.optimization
    if options.load_in_8bit or options.load_in_4bit or options.quantization:
        raise ValueError(f"models of task {config.model.task} are not quantised while they load")
