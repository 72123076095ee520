"""Tiny checkpoints of the families that transformers no longer carries, in their own files: keys of
config.json, names and packings of tensors and vocabularies as they were published."""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from family_models import VOCAB, byte_level, unsettle
from safetensors.torch import save_file
from sentencepiece import SentencePieceTrainer
from tiny import CORPUS, write_json
from transformers import AutoConfig, AutoModelForCausalLM

from smmf_core.engines.prompt.text import byte_level_bytes

WIDTH, INNER, LAYERS, HEADS, GROUPS = 48, 96, 2, 6, 2
SIZE = WIDTH // HEADS
CONTEXT = 512
_SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.2,
    "rms_norm_eps": 1e-6,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Legacy:
    """`native` is the configuration of the same arithmetic in transformers; `keys` are what the
    family's config.json says instead; `pack` makes its tensors of the native ones."""

    family: str
    checkpoint: str
    adapter: str
    native: Callable[[], Any]
    keys: dict[str, Any]
    pack: Callable[[Tensors], Tensors]
    write_tokenizer: Callable[[Path], None]
    is_head_normalised: bool = False


def write_legacy(legacy: Legacy, parent: Path) -> tuple[Path, Any]:
    """The folder, and the model that it holds as transformers would have it."""
    folder = parent / legacy.checkpoint
    folder.mkdir()
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(legacy.native()).eval()
    unsettle(model)
    packed = legacy.pack({name: t.detach().clone() for name, t in model.state_dict().items()})
    save_file({name: tensor.contiguous() for name, tensor in packed.items()}, folder / _FILE)
    write_json(folder / "config.json", {"tie_word_embeddings": False, **legacy.keys})
    legacy.write_tokenizer(folder)
    if legacy.is_head_normalised:
        with torch.no_grad():
            model.lm_head.weight.copy_(torch.nn.functional.normalize(model.lm_head.weight))
    return folder, model


_FILE = "model.safetensors"
_REMOTE_CODE = Path(__file__).parents[1] / "remote_code"


def write_remote(parent: Path) -> Path:
    """A Baichuan 2 13B with its model and its tokenizer as Python files, as it was published."""
    folder = parent / "Baichuan2-13B-Chat"
    shutil.copytree(_REMOTE_CODE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    sizes = {key: value for key, value in _ALIKE.items() if key != "max_position_embeddings"}
    config = {
        **sizes,
        "model_type": "baichuan",
        "model_max_length": CONTEXT,
        "z_loss_weight": 0,
        "tie_word_embeddings": False,
        "auto_map": {
            "AutoConfig": "modeling_alibi.BaichuanConfig",
            "AutoModelForCausalLM": "modeling_alibi.BaichuanForCausalLM",
        },
    }
    write_json(folder / "config.json", config)
    tokens = ("<s>", "</s>", "<reserved_106>", "<reserved_107>")
    listed = {
        str(261 + n): {"content": token, "special": True, "normalized": False}
        for n, token in enumerate(tokens)
    }
    names = {"bos_token": "<s>", "eos_token": "</s>", "added_tokens_decoder": listed}
    code = {"auto_map": {"AutoTokenizer": ["tokenization_bytes.BytesTokenizer", None]}}
    write_json(folder / "tokenizer_config.json", {**names, **code})
    torch.manual_seed(5)
    made = AutoModelForCausalLM.from_config(
        AutoConfig.from_pretrained(folder, trust_remote_code=True), trust_remote_code=True
    )
    unsettle(made)
    save_file(made.state_dict(), folder / _FILE)
    return folder


def _rename(tensors: Tensors, pairs: dict[str, str]) -> Tensors:
    renamed = {}
    for name, tensor in tensors.items():
        for old, new in pairs.items():
            name = name.replace(old, new)
        renamed[name] = tensor
    return renamed


def _join(tensors: Tensors, packed: str, join: Callable[[list[torch.Tensor]], Any]) -> Tensors:
    """One tensor instead of queries, keys and values; its name relative to theirs."""
    joined = dict(tensors)
    for name in tensors:
        match = re.fullmatch(r"(.*)self_attn\.q_proj\.(weight|bias)", name)
        if match:
            before, kind = match.groups()
            parts = [joined.pop(f"{before}self_attn.{letter}_proj.{kind}") for letter in "qkv"]
            joined[f"{before}{packed}.{kind}"] = join(parts)
    return joined


def _by_group(parts: list[torch.Tensor]) -> torch.Tensor:
    """InternLM 2: each key-value head after the queries that use it."""
    counts = (HEADS // GROUPS, 1, 1)
    rows = [p.view(GROUPS, n, SIZE, -1) for p, n in zip(parts, counts, strict=True)]
    return torch.cat(rows, 1).reshape(-1, WIDTH)


def _internlm2(tensors: Tensors) -> Tensors:
    names = {
        "embed_tokens": "tok_embeddings",
        "lm_head": "output",
        "input_layernorm": "attention_norm",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "feed_forward.w1",
        "mlp.down_proj": "feed_forward.w2",
        "mlp.up_proj": "feed_forward.w3",
        "self_attn.o_proj": "attention.wo",
    }
    return _rename(_join(tensors, "attention.wqkv", _by_group), names)


def _baichuan(tensors: Tensors) -> Tensors:
    return _join(tensors, "self_attn.W_pack", torch.cat)


def _qwen(tensors: Tensors) -> Tensors:
    names = {
        "model.embed_tokens": "transformer.wte",
        "model.norm": "transformer.ln_f",
        "model.layers": "transformer.h",
        "input_layernorm": "ln_1",
        "post_attention_layernorm": "ln_2",
        "mlp.up_proj": "mlp.w1",
        "mlp.gate_proj": "mlp.w2",
        "mlp.down_proj": "mlp.c_proj",
        "self_attn.o_proj": "attn.c_proj",
    }
    return _rename(_join(tensors, "attn.c_attn", torch.cat), names)


def _chatglm(tensors: Tensors) -> Tensors:
    names = {
        "model.embed_tokens": "transformer.embedding.word_embeddings",
        "model.norm": "transformer.encoder.final_layernorm",
        "model.layers": "transformer.encoder.layers",
        "lm_head": "transformer.output_layer",
        "mlp.gate_up_proj": "mlp.dense_h_to_4h",
        "mlp.down_proj": "mlp.dense_4h_to_h",
        "self_attn.o_proj": "self_attention.dense",
    }
    packed = _rename(_join(tensors, "self_attention.query_key_value", torch.cat), names)
    return {**packed, "transformer.rotary_pos_emb.inv_freq": torch.ones(2)}


def sentencepiece(*symbols: str, **settings: Any) -> Callable[[Path], None]:
    """Writes a tokenizer.model whose own vocabulary has these symbols."""

    def write(folder: Path) -> None:
        SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS * 20),
            model_prefix=str(folder / "tokenizer"),
            vocab_size=VOCAB - 40,
            model_type="bpe",
            byte_fallback=True,
            hard_vocab_limit=False,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            user_defined_symbols=list(symbols),
            minloglevel=2,
        )
        (folder / "tokenizer.vocab").unlink()
        write_json(folder / "tokenizer_config.json", {**_CODE, **settings})

    return write


_CODE = {"auto_map": {"AutoTokenizer": ["tokenization_old.OldTokenizer", None]}}


def ranks(path: str, added: tuple[str, ...]) -> Callable[[Path], None]:
    """Writes a vocabulary as tiktoken has it: bytes and their rank, one token a line."""

    def write(folder: Path) -> None:
        vocab = byte_level(()).get_vocab()
        pieces = sorted(vocab, key=lambda piece: vocab[piece])
        lines = [
            base64.b64encode(byte_level_bytes(piece)) + b" %d\n" % rank
            for rank, piece in enumerate(pieces)
        ]
        (folder / path).write_bytes(b"".join(lines))
        listed = {str(len(lines) + n): {"content": piece} for n, piece in enumerate(added)}
        write_json(folder / "tokenizer_config.json", {**_CODE, "added_tokens_decoder": listed})

    return write


def _llama(**changes: Any) -> Callable[[], Any]:
    return lambda: transformers.LlamaConfig(**{**_SIZES, **changes})


def _glm(rope_theta: float, vocab_size: int = VOCAB) -> Callable[[], Any]:
    rope = {"rope_type": "default", "rope_theta": rope_theta, "partial_rotary_factor": 0.5}
    sizes = {**_SIZES, "vocab_size": vocab_size, "rms_norm_eps": 1e-5, "head_dim": 16}
    groups = {"num_key_value_heads": GROUPS, "rope_parameters": rope}
    return lambda: transformers.GlmConfig(**sizes, **groups)


_CHATGLM_KEYS = {
    "model_type": "chatglm",
    "architectures": ["ChatGLMModel"],
    "add_bias_linear": False,
    "add_qkv_bias": True,
    "ffn_hidden_size": INNER,
    "hidden_size": WIDTH,
    "kv_channels": 16,
    "layernorm_epsilon": 1e-5,
    "multi_query_attention": True,
    "multi_query_group_num": GROUPS,
    "num_attention_heads": HEADS,
    "num_layers": LAYERS,
    "padded_vocab_size": VOCAB,
    "vocab_size": VOCAB,
    "rmsnorm": True,
    "seq_length": CONTEXT,
    "eos_token_id": 2,
}
_ALIKE = {key: value for key, value in _SIZES.items() if key != "pad_token_id"}

LEGACY = (
    Legacy(
        "InternLM 1", "internlm-chat-7b", "internlm", _llama(attention_bias=True),
        {**_ALIKE, "model_type": "internlm", "bias": True, "rotary": {"base": 10000}},
        dict, sentencepiece("<eoh>", "<eoa>", "<|User|>", "<|Bot|>", "<|System|>"),
    ),
    Legacy(
        "InternLM 2", "internlm2-chat-7b", "internlm2",
        _llama(
            num_key_value_heads=GROUPS,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        ),
        {
            **_ALIKE, "model_type": "internlm2", "num_key_value_heads": GROUPS, "bias": False,
            "rope_theta": 1000000, "rope_scaling": {"type": "dynamic", "factor": 2.0},
        },
        _internlm2,
        sentencepiece(
            bos_token="<s>", eos_token="</s>",
            added_tokens_decoder={
                str(VOCAB - 2): {"content": "<|im_start|>"},
                str(VOCAB - 1): {"content": "<|im_end|>"},
            },
        ),
    ),
    Legacy(
        "Baichuan 2 7B", "Baichuan2-7B-Chat", "baichuan2", _llama(),
        {**_ALIKE, "model_type": "baichuan", "z_loss_weight": 0},
        _baichuan, sentencepiece("<reserved_106>", "<reserved_107>"), True,
    ),
    Legacy(
        "Qwen 1", "Qwen-7B-Chat", "qwen",
        lambda: transformers.Qwen2Config(**_SIZES, num_key_value_heads=HEADS),
        {
            "model_type": "qwen", "vocab_size": VOCAB, "hidden_size": WIDTH,
            "intermediate_size": 2 * INNER, "num_hidden_layers": LAYERS, "kv_channels": SIZE,
            "num_attention_heads": HEADS, "seq_length": CONTEXT, "layer_norm_epsilon": 1e-6,
            "rotary_emb_base": 10000, "no_bias": True, "use_dynamic_ntk": True,
            "max_position_embeddings": 4 * CONTEXT,
        },
        _qwen,
        ranks(
            "qwen.tiktoken", ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
        ),
    ),
    Legacy(
        "ChatGLM 2", "chatglm2-6b", "chatglm2", _glm(10000.0), _CHATGLM_KEYS, _chatglm,
        sentencepiece(),
    ),
    Legacy(
        "ChatGLM 3", "chatglm3-6b-32k", "chatglm3", _glm(500000.0),
        {**_CHATGLM_KEYS, "rope_ratio": 50}, _chatglm, sentencepiece(),
    ),
    Legacy(
        "GLM-4 (first files)", "glm-4-9b-chat", "glm-4", _glm(500000.0),
        {**_CHATGLM_KEYS, "rope_ratio": 50}, _chatglm,
        ranks(
            "tokenizer.model",
            (
                "<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>",
                "<|observation|>",
            ),
        ),
    ),
)  # fmt: skip
