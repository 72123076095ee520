"""ChatGLM 1 as it was published: a tiny checkpoint, and its forward pass from the tensors alone,
all at once, without a cache: what the engine is compared with."""

from __future__ import annotations

from pathlib import Path

import torch
from legacy_models import CONTEXT, HEADS, INNER, LAYERS, WIDTH
from safetensors.torch import load_file, save_file
from sentencepiece import SentencePieceTrainer
from tiny import CORPUS, write_json
from torch.nn import functional

SIZE = WIDTH // HEADS
CHECKPOINT = "chatglm-6b"
SYMBOLS = ("[gMASK]", "<sop>", "<eop>", "<n>", "<|tab|>", "<|blank_2|>", "<|blank_3|>")


def write_chatglm1(parent: Path) -> Path:
    folder = parent / CHECKPOINT
    folder.mkdir()
    vocab_size = _write_tokenizer(folder)
    config = {
        "model_type": "chatglm",
        "architectures": ["ChatGLMModel"],
        "auto_map": {"AutoModel": "modeling_chatglm.ChatGLMForConditionalGeneration"},
        "bos_token_id": SYMBOLS.index("<sop>") + 3,
        "eos_token_id": SYMBOLS.index("<eop>") + 3,
        "hidden_size": WIDTH,
        "inner_hidden_size": INNER,
        "layernorm_epsilon": 1e-5,
        "max_sequence_length": CONTEXT,
        "num_attention_heads": HEADS,
        "num_layers": LAYERS,
        "position_encoding_2d": True,
        "vocab_size": vocab_size,
    }
    write_json(folder / "config.json", config)
    save_file(_tensors(vocab_size), folder / "model.safetensors")
    return folder


def generated(folder: Path, prompt: list[int], tokens: int) -> list[int]:
    """Greedy, each token from a pass over everything before it."""
    tensors = load_file(folder / "model.safetensors")
    ids = list(prompt)
    for _ in range(tokens):
        ids.append(int(_logits(tensors, ids, SYMBOLS.index("<sop>") + 3).argmax()))
    return ids[len(prompt) :]


def _write_tokenizer(folder: Path) -> int:
    SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 20),
        model_prefix=str(folder / "ice_text"),
        vocab_size=380,
        model_type="bpe",
        byte_fallback=True,
        hard_vocab_limit=False,
        user_defined_symbols=list(SYMBOLS),
        minloglevel=2,
    )
    pieces = (folder / "ice_text.vocab").read_text(encoding="utf-8").count("\n")
    (folder / "ice_text.vocab").unlink()
    code = {"AutoTokenizer": ["tokenization_chatglm.ChatGLMTokenizer", None]}
    config = {"auto_map": code, "bos_token": "<sop>", "eos_token": "<eop>", "num_image_tokens": 0}
    write_json(folder / "tokenizer_config.json", config)
    return pieces


def _tensors(vocab_size: int) -> dict[str, torch.Tensor]:
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.word_embeddings": (vocab_size, WIDTH),
        "lm_head": (vocab_size, WIDTH),
    }
    for layer in range(LAYERS):
        before = f"transformer.layers.{layer}."
        shapes[before + "attention.query_key_value"] = (3 * WIDTH, WIDTH)
        shapes[before + "attention.dense"] = (WIDTH, WIDTH)
        shapes[before + "mlp.dense_h_to_4h"] = (INNER, WIDTH)
        shapes[before + "mlp.dense_4h_to_h"] = (WIDTH, INNER)
    random = torch.Generator().manual_seed(3)
    tensors = {}
    for name, shape in shapes.items():
        tensors[f"{name}.weight"] = 0.3 * torch.randn(shape, generator=random)
        if "layers" in name:
            tensors[f"{name}.bias"] = 0.3 * torch.randn(shape[:1], generator=random)
    norms = ["transformer.final_layernorm"]
    for layer in range(LAYERS):
        norms.append(f"transformer.layers.{layer}.input_layernorm")
        norms.append(f"transformer.layers.{layer}.post_attention_layernorm")
        tensors[f"transformer.layers.{layer}.attention.rotary_emb.inv_freq"] = torch.ones(2)
    for name in norms:
        tensors[f"{name}.weight"] = 1 + 0.3 * torch.randn(WIDTH, generator=random)
        tensors[f"{name}.bias"] = 0.3 * torch.randn(WIDTH, generator=random)
    return tensors


def _logits(tensors: dict[str, torch.Tensor], ids: list[int], sop: int) -> torch.Tensor:
    """Of the last token."""
    length = ids.index(sop)  # of the prompt
    first = [min(n, length - 1) for n in range(len(ids))]
    second = [max(n - length + 1, 0) for n in range(len(ids))]
    count = len(ids)
    seen = [[other <= n or other < length for other in range(count)] for n in range(count)]
    hidden = tensors["transformer.word_embeddings.weight"][ids]
    weight = (2 * LAYERS) ** 0.5
    for layer in range(LAYERS):
        own = {
            name.removeprefix(f"transformer.layers.{layer}."): tensor
            for name, tensor in tensors.items()
        }
        normed = _norm(own, "input_layernorm", hidden)
        hidden = weight * normed + _attention(own, normed, first, second, torch.tensor(seen))
        normed = _norm(own, "post_attention_layernorm", hidden)
        inner = functional.gelu(_linear(own, "mlp.dense_h_to_4h", normed), approximate="tanh")
        hidden = weight * normed + _linear(own, "mlp.dense_4h_to_h", inner)
    final = _norm(tensors, "transformer.final_layernorm", hidden)
    return tensors["lm_head.weight"] @ final[-1]


def _attention(
    own: dict[str, torch.Tensor],
    normed: torch.Tensor,
    first: list[int],
    second: list[int],
    seen: torch.Tensor,
) -> torch.Tensor:
    packed = _linear(own, "attention.query_key_value", normed).view(-1, HEADS, 3, SIZE)
    mixed = []
    for head in range(HEADS):
        query, key, value = packed[:, head].unbind(1)
        query, key = (_rotated(part, first, second) for part in (query, key))
        scores = (query @ key.T / SIZE**0.5).masked_fill(~seen, float("-inf"))
        mixed.append(scores.softmax(-1) @ value)
    return _linear(own, "attention.dense", torch.cat(mixed, 1))


def _rotated(rows: torch.Tensor, first: list[int], second: list[int]) -> torch.Tensor:
    half = SIZE // 2
    turned = rows.clone()
    for start, positions in ((0, first), (half, second)):
        for pair in range(half // 2):
            angles = torch.tensor(positions) * 10000.0 ** (-2 * pair / half)
            left, right = rows[:, start + pair], rows[:, start + pair + half // 2]
            turned[:, start + pair] = left * angles.cos() - right * angles.sin()
            turned[:, start + pair + half // 2] = right * angles.cos() + left * angles.sin()
    return turned


def _linear(own: dict[str, torch.Tensor], name: str, rows: torch.Tensor) -> torch.Tensor:
    return functional.linear(rows, own[f"{name}.weight"], own[f"{name}.bias"])


def _norm(own: dict[str, torch.Tensor], name: str, rows: torch.Tensor) -> torch.Tensor:
    return functional.layer_norm(rows, (WIDTH,), own[f"{name}.weight"], own[f"{name}.bias"])
