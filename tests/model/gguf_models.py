"""Makes small GGUF files for the tests: from tiny folders, LoRA adapters, BERT encoders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import engines_env
import numpy as np
from safetensors.numpy import load_file
from tiny import make_model, write_weights

engines_env.require("llama-cpp")

import gguf

from configs.demo.export.to_gguf import export, write_tokenizer
from smmf_core.config import Model, ModelConfig
from smmf_core.config.schema import Deployment, Optimization
from smmf_core.engines.llama_cpp.api import Grammar
from smmf_core.engines.llama_cpp.engine import create

Tensors = dict[str, np.ndarray]


def make_gguf(
    folder: Path, change: Callable[[Tensors], None] | None = None, **settings: Any
) -> Path:
    """A tiny random model as float32 GGUF, its tensors changed before if wanted."""
    make_model(folder, **settings)
    if change is not None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        write_weights(folder / "model.safetensors", tensors, "float32")
    return export(folder, folder / "tiny.gguf", "f32")


def make_config(
    path: Path, slots: int = 8, task: Any = "generate", dtype: Any = "float32", **engine: Any
) -> ModelConfig:
    return ModelConfig(
        model=Model(name="tiny", backend="llama_cpp", path=str(path), task=task),
        deployment=Deployment(device="cpu"),
        optimization=Optimization(dtype=dtype, max_batch_size=slots),
        engine=engine,
    )


def open_llama(path: Path, slots: int = 8, **engine: Any) -> Any:
    opened = create(make_config(path, slots, **engine))
    opened.load(lambda done: None)
    return opened


def accepts(engine: Any, grammar: str, text: str) -> bool:
    """Whether the whole text follows the grammar, as llama.cpp sees it."""
    model = engine._loaded.model
    parser = Grammar(model, grammar)
    try:
        for token in model.tokenize(text, add_special=False):
            if not parser.allows(token):
                return False
            parser.accept(token)
        return parser.allows(1)  # the end
    finally:
        parser.close()


def make_lora(folder: Path, target: Path, seed: int, rank: int = 4) -> Tensors:
    """A LoRA adapter of a tiny model's values and outputs; also the weights that it makes of it."""
    random = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(rank))
    tensors = load_file(folder / "model.safetensors")
    for layer in range(json.loads((folder / "config.json").read_text())["num_hidden_layers"]):
        for source, name in (("self_attn.v_proj", "attn_v"), ("self_attn.o_proj", "attn_output")):
            key = f"model.layers.{layer}.{source}.weight"
            height, width = tensors[key].shape
            a = random.standard_normal((rank, width), np.float32) * 0.3
            b = random.standard_normal((height, rank), np.float32) * 0.3
            writer.add_tensor(f"blk.{layer}.{name}.weight.lora_a", a)
            writer.add_tensor(f"blk.{layer}.{name}.weight.lora_b", b)
            tensors[key] = tensors[key] + b @ a
    _finish(writer)
    return tensors


_BERT = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
    "pooler.dense": "cls",
    "classifier": "cls.output",
}


def make_bert(
    config: dict[str, Any], tokens: list[str], tensors: Tensors, target: Path, pooling: Any
) -> Path:
    """An encoder of the BERT family with a WordPiece vocabulary as GGUF."""
    writer = gguf.GGUFWriter(target, "bert")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(pooling)
    if pooling == gguf.PoolingType.RANK:
        writer.add_classifier_output_labels(["relevance"])
    _add_word_pieces(writer, tokens, config.get("type_vocab_size", 1))
    for name, tensor in tensors.items():
        if (renamed := _bert_name(name, pooling)) is not None:
            writer.add_tensor(renamed, np.ascontiguousarray(tensor, np.float32))
    _finish(writer)
    return target


WORD_PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "river", "##s", "dog", "."]


def make_tiny_bert(target: Path, pooling: Any, seed: int = 0) -> Path:
    """Random weights, a vocabulary of some words."""
    random = np.random.default_rng(seed)
    config = {
        "max_position_embeddings": 64, "hidden_size": 32, "num_hidden_layers": 2,
        "intermediate_size": 64, "num_attention_heads": 2, "layer_norm_eps": 1e-12,
    }  # fmt: skip
    shapes = {
        "embeddings.word_embeddings": (len(WORD_PIECES), 32),
        "embeddings.position_embeddings": (64, 32),
        "embeddings.token_type_embeddings": (1, 32),
        "embeddings.LayerNorm": (32,),
        "pooler.dense": (32, 32),
        "classifier": (1, 32),
    }
    for layer in range(2):
        start = f"encoder.layer.{layer}."
        shapes |= {f"{start}attention.self.{n}": (32, 32) for n in ("query", "key", "value")}
        shapes |= {f"{start}attention.output.dense": (32, 32), f"{start}output.dense": (32, 64)}
        shapes |= {f"{start}{n}output.LayerNorm": (32,) for n in ("attention.", "")}
        shapes[f"{start}intermediate.dense"] = (64, 32)
    tensors = {}
    for name, shape in shapes.items():
        tensors[f"{name}.weight"] = random.standard_normal(shape) * 0.3 + (len(shape) == 1)
        if "_embeddings" not in name:
            tensors[f"{name}.bias"] = random.standard_normal(shape[0]) * 0.1
    return make_bert(config, WORD_PIECES, tensors, target, pooling)


def _add_word_pieces(writer: gguf.GGUFWriter, tokens: list[str], types: int) -> None:
    """llama.cpp marks the beginnings of words, BERT what goes on with one."""
    special = {token for token in tokens if token.startswith("[") and token.endswith("]")}
    renamed = [
        token if token in special else token[2:] if token.startswith("##") else f"\u2581{token}"
        for token in tokens
    ]
    normal, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
    writer.add_token_type_count(types)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(renamed)
    writer.add_token_types([control if token in special else normal for token in tokens])
    writer.add_unk_token_id(tokens.index("[UNK]"))
    writer.add_sep_token_id(tokens.index("[SEP]"))
    writer.add_pad_token_id(tokens.index("[PAD]"))
    writer.add_bos_token_id(tokens.index("[CLS]"))
    writer.add_mask_token_id(tokens.index("[MASK]"))


def _bert_name(source: str, pooling: Any) -> str | None:
    name, _, kind = source.removeprefix("bert.").rpartition(".")
    if name in ("pooler.dense", "classifier") and pooling != gguf.PoolingType.RANK:
        return None
    if name.startswith("encoder.layer."):
        _, _, layer, rest = name.split(".", 3)
        return f"blk.{layer}.{_BERT[rest]}.{kind}"
    return f"{_BERT[name]}.{kind}" if name in _BERT else None


def _finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make_mamba(folder: Path, seed: int = 0) -> Path:
    """A tiny random recurrent model: its memory of a text is one state, it cannot be cut."""
    width, inner, state, rank, layers = 32, 64, 8, 4, 2
    random = np.random.default_rng(seed)
    make_model(folder)
    target = folder / "mamba.gguf"
    writer = gguf.GGUFWriter(target, "mamba")
    writer.add_context_length(512)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_block_count(layers)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_ssm_conv_kernel(4)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)
    config = json.loads((folder / "config.json").read_text())
    write_tokenizer(writer, folder, config)
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (config["vocab_size"], width),
        "output_norm.weight": (width,),
    }
    for layer in range(layers):
        shapes |= {
            f"blk.{layer}.attn_norm.weight": (width,),
            f"blk.{layer}.ssm_in.weight": (2 * inner, width),
            f"blk.{layer}.ssm_conv1d.weight": (inner, 4),
            f"blk.{layer}.ssm_conv1d.bias": (inner,),
            f"blk.{layer}.ssm_x.weight": (rank + 2 * state, inner),
            f"blk.{layer}.ssm_dt.weight": (inner, rank),
            f"blk.{layer}.ssm_dt.bias": (inner,),
            f"blk.{layer}.ssm_a": (inner, state),
            f"blk.{layer}.ssm_d": (inner,),
            f"blk.{layer}.ssm_out.weight": (width, inner),
        }
    for name, shape in shapes.items():
        values = random.standard_normal(shape).astype(np.float32) * 0.3
        if name.endswith("ssm_a"):
            values = -np.exp(values)
        writer.add_tensor(name, values + ("norm" in name))
    _finish(writer)
    return target
