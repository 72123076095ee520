"""Writes a Llama-family folder with a byte-level BPE tokenizer as one GGUF file.

    python configs/demo/export/to_gguf.py configs/demo demo.gguf --type f16

Wants numpy and `gguf` (`pip install gguf`); no torch. Types: f32, f16, q8_0. Norms and biases stay
float32, as llama.cpp wants them.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np

TYPES = {
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
OUTER = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
INNER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def export(folder: Path, target: Path, kind: str = "f16", name: str = "") -> Path:
    """Write `target`. Raises ValueError for a model that this script does not know."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    if config.get("model_type") not in ("llama", "mistral"):
        raise ValueError(f"{folder} holds a {config.get('model_type')} model, not a Llama.")
    writer = gguf.GGUFWriter(target, "llama")
    _write_sizes(writer, config, kind, name or folder.resolve().name)
    write_tokenizer(writer, folder, config)
    for source, tensor in _read_tensors(folder):
        _write_tensor(writer, _name(source), _arranged(source, tensor, config), TYPES[kind][0])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _write_sizes(writer: gguf.GGUFWriter, config: dict[str, Any], kind: str, name: str) -> None:
    heads = config["num_attention_heads"]
    head = config.get("head_dim") or config["hidden_size"] // heads
    rope = config.get("rope_parameters") or {}
    if (config.get("rope_scaling") or rope).get("rope_type", "default") != "default":
        raise ValueError("Scaled rotary embeddings are not written by this script.")
    writer.add_name(name)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(float(rope.get("rope_theta") or config.get("rope_theta", 10000.0)))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_file_type(TYPES[kind][1])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def write_tokenizer(writer: gguf.GGUFWriter, folder: Path, config: dict[str, Any]) -> None:
    """Vocabulary and merges of tokenizer.json, special tokens and the chat template."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    model = tokenizer["model"]
    splits = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    if model["type"] != "BPE" or not splits.items() <= (tokenizer["pre_tokenizer"] or {}).items():
        raise ValueError("Only BPE tokenizers that split as GPT-2's are written by this script.")
    normal, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
    tokens = [f"[unused{number}]" for number in range(config["vocab_size"])]
    types = [gguf.TokenType.UNUSED] * len(tokens)
    for piece, number in model["vocab"].items():
        tokens[number], types[number] = piece, normal
    for added in tokenizer["added_tokens"]:
        number = added["id"]
        tokens[number] = added["content"]
        types[number] = control if added["special"] else gguf.TokenType.USER_DEFINED
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    for setting, add in (
        ("bos_token", writer.add_bos_token_id),
        ("eos_token", writer.add_eos_token_id),
        ("pad_token", writer.add_pad_token_id),
    ):
        if settings.get(setting) in tokens:
            add(tokens.index(settings[setting]))
    writer.add_add_bos_token(_adds_bos(tokenizer, settings.get("bos_token")))
    writer.add_add_space_prefix(False)
    if settings.get("chat_template"):
        writer.add_chat_template(settings["chat_template"])


def _adds_bos(tokenizer: dict[str, Any], bos: Any) -> bool:
    """Whether the post-processor puts the token before a text."""
    template = (tokenizer.get("post_processor") or {}).get("single") or []
    first = (template[0].get("SpecialToken") or {}).get("id") if template else None
    return first is not None and first == bos


def _read_tensors(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """All tensors of a folder's safetensors files, as float32."""
    for file in sorted(folder.glob("*.safetensors")):
        data = np.memmap(file, np.uint8, "r")
        start = 8 + int.from_bytes(data[:8].tobytes(), "little")
        for name, entry in json.loads(data[8:start].tobytes()).items():
            if name == "__metadata__":
                continue
            first, last = (start + offset for offset in entry["data_offsets"])
            values = data[first:last].view(DTYPES[entry["dtype"]])
            if entry["dtype"] == "BF16":
                values = (values.astype(np.uint32) << 16).view(np.float32)
            yield name, values.astype(np.float32).reshape(entry["shape"])


def _name(source: str) -> str:
    if source in OUTER:
        return OUTER[source]
    _, _, layer, *path, kind = source.split(".")
    return f"blk.{layer}.{INNER['.'.join(path)]}.{kind}"


def _arranged(source: str, tensor: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """llama.cpp rotates pairs of neighbours, transformers a head's two halves: reorder the rows."""
    heads = {
        "q_proj": config["num_attention_heads"],
        "k_proj": config.get("num_key_value_heads") or config["num_attention_heads"],
    }.get(source.split(".")[-2])
    if heads is None:
        return tensor
    halves = tensor.reshape(heads, 2, -1, *tensor.shape[1:])
    return halves.swapaxes(1, 2).reshape(tensor.shape)


def _write_tensor(writer: gguf.GGUFWriter, name: str, tensor: np.ndarray, kind: Any) -> None:
    """Vectors, and rows that do not fill a block, stay float32."""
    block, _ = gguf.GGML_QUANT_SIZES[kind]
    if tensor.ndim == 1 or tensor.shape[-1] % block:
        kind = gguf.GGMLQuantizationType.F32
    data = gguf.quants.quantize(np.ascontiguousarray(tensor), kind)
    writer.add_tensor(name, data, raw_dtype=kind)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--type", choices=TYPES, default="f16")
    args = parser.parse_args()
    export(args.folder, args.target, args.type)
    print(f"{args.target}: {args.target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
