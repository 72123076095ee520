"""Makes a tiny Idefics3 model folder (SmolVLM's family) with random weights, and pictures."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from tiny import BOS, EOS, PAD, make_tokenizer, random_tensors, write_json, write_weights

IMAGE, AROUND, GLOBAL = "<image>", "<fake_token_around_image>", "<global-img>"
SIDE, PATCH, SCALE = 56, 14, 2
WIDTH, INNER, LAYERS = 32, 64, 2  # of the vision tower
IMAGE_TOKENS = (SIDE // PATCH // SCALE) ** 2 + 3  # with what stands around them
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{% for part in m.content %}"
    "{% if part.type == 'image' %}<image>{% elif part.type == 'text' %}{{ part.text }}{% endif %}"
    "{% endfor %}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
_NORMALISED = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}


def png(seed: int, width: int = SIDE, height: int = SIDE) -> bytes:
    """A picture in RGB: noise, another for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    lines = b"".join(b"\0" + row.tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def make_vision_model(folder: Path, seed: int = 0) -> Path:
    """A whole model folder. A picture takes IMAGE_TOKENS tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens([IMAGE, AROUND, GLOBAL])
    tokenizer.save(str(folder / "tokenizer.json"))
    text = {
        "model_type": "llama",
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,  # the least that vLLM has on the CPU
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "vocab_size": tokenizer.get_vocab_size(),
    }
    vision = {
        "model_type": "idefics3_vision",
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": PATCH,
    }
    config = {
        "architectures": ["Idefics3ForConditionalGeneration"],
        "model_type": "idefics3",
        "image_token_id": tokenizer.token_to_id(IMAGE),
        "pad_token_id": 2,
        "scale_factor": SCALE,
        "tie_word_embeddings": False,
        "text_config": text,
        "vision_config": vision,
    }
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", {"bos_token_id": 0, "eos_token_id": 1})
    names = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    write_json(folder / "tokenizer_config.json", settings)
    write_json(folder / "chat_template.json", {"chat_template": TEMPLATE})
    _write_processor(folder)
    tensors = _named(random_tensors(text, seed, False))
    tensors |= _vision_tensors(np.random.default_rng(seed), text)
    write_weights(folder / "model.safetensors", tensors, "float32")
    return folder


def _write_processor(folder: Path) -> None:
    """A picture is one tile: it is not split."""
    write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "Idefics3ImageProcessor",
            "processor_class": "Idefics3Processor",
            "do_convert_rgb": True,
            "do_image_splitting": False,
            "do_normalize": True,
            "do_pad": True,
            "do_rescale": True,
            "do_resize": True,
            "max_image_size": {"longest_edge": SIDE},
            "size": {"longest_edge": SIDE},
            "resample": 1,
            "rescale_factor": 1 / 255,
            **_NORMALISED,
        },
    )
    count = (SIDE // PATCH // SCALE) ** 2
    processor = {"processor_class": "Idefics3Processor", "image_seq_len": count}
    write_json(folder / "processor_config.json", processor)


def _named(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A Llama's tensors as Idefics3 calls them."""
    return {k.replace("model.", "model.text_model.", 1): v for k, v in tensors.items()}


def _vision_tensors(random: np.random.Generator, text: dict[str, Any]) -> dict[str, np.ndarray]:
    """The tower and the connector: large enough that pictures change the text."""
    tower = "model.vision_model."
    connector = "model.connector.modality_projection.proj.weight"
    shapes: dict[str, tuple[int, ...]] = {
        f"{tower}embeddings.patch_embedding.weight": (WIDTH, 3, PATCH, PATCH),
        f"{tower}embeddings.patch_embedding.bias": (WIDTH,),
        f"{tower}embeddings.position_embedding.weight": ((SIDE // PATCH) ** 2, WIDTH),
        connector: (text["hidden_size"], WIDTH * SCALE**2),
    }
    norms = [f"{tower}post_layernorm"]
    for layer in range(LAYERS):
        prefix = f"{tower}encoder.layers.{layer}."
        norms += [f"{prefix}layer_norm1", f"{prefix}layer_norm2"]
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes[f"{prefix}self_attn.{name}.weight"] = (WIDTH, WIDTH)
            shapes[f"{prefix}self_attn.{name}.bias"] = (WIDTH,)
        for name, size, given in (("fc1", INNER, WIDTH), ("fc2", WIDTH, INNER)):
            shapes[f"{prefix}mlp.{name}.weight"] = (size, given)
            shapes[f"{prefix}mlp.{name}.bias"] = (size,)
    tensors = {
        name: (random.standard_normal(shape) * 0.2).astype(np.float32)
        for name, shape in shapes.items()
    }
    for name in norms:
        tensors[f"{name}.weight"] = np.ones(WIDTH, np.float32)
        tensors[f"{name}.bias"] = np.zeros(WIDTH, np.float32)
    return tensors


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
