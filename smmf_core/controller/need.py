"""How much memory one replica of a model will need, before it is loaded: weights and KV cache.

Owns the estimate that `smmf check` shows and the Controller reserves; must not import a framework,
read a weight or fail. 0: not known (a hub id, files that make no sense, the echo engine): such a
model takes nothing from the budget until its memory has been measured once.

Who wins: `[deployment] memory_gib`, else what was measured in a former life, else this estimate.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from smmf_core.config import ModelConfig
from smmf_core.config.engine_options import LlamaCppOptions
from smmf_core.controller.weights import Format, weight_bytes, weight_files
from smmf_core.engines.llama_cpp.gguf_file import LEAST_CONTEXT, find_gguf, read_sizes

GIB = 2**30
MIB = 2**20
_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_GGUF_TYPES = {"auto": "f16", "float16": "f16", "bfloat16": "bf16", "float32": "f32"}
_VLLM_SHARE = 0.9  # of a device, where `gpu_memory_utilization` does not say
_VLLM_CPU_KV_BYTES = 4 * GIB  # what engines.vllm asks for, but at most a quarter of the memory
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
_LAYER_KEYS = ("num_hidden_layers", "n_layer", "num_layers")
_HEAD_KEYS = ("num_attention_heads", "n_head")
_KV_HEAD_KEYS = ("num_key_value_heads", "multi_query_group_num", "num_kv_heads", "n_head_kv")
_HEAD_SIZE_KEYS = ("head_dim", "kv_channels")
_WIDTH_KEYS = ("hidden_size", "n_embd")
_ODD = (OSError, ValueError, TypeError, AttributeError, ArithmeticError)  # of odd files


@dataclass(frozen=True, slots=True)
class Place:
    """What kind of devices a replica would go to; sizes are of each of them, 0: not known."""

    is_gpu: bool = False
    count: int = 1
    total_bytes: int = 0
    budget_bytes: int = 0


RAM = Place()


def estimate(config: ModelConfig, place: Place = RAM) -> int:
    """Bytes of one replica, on all its devices together."""
    given = config.deployment.memory_gib
    if given:
        return int(given * GIB)
    if config.model.backend == "echo" or not config.model.path:
        return 0
    with suppress(*_ODD):
        if share := _reserved_share(config, place):
            return share
    path = Path(config.model.path).expanduser()
    settings = _settings(path)
    files = weight_files(path)
    weights = weight_bytes(files, _format(config, settings, place)) if files else 0
    with suppress(*_ODD):  # weights alone are a better estimate than none
        return weights + (_cache_bytes(config, path, settings, place) if weights else 0)
    return weights


def preallocates(config: ModelConfig, place: Place) -> bool:
    """Whether it takes its memory at once and for good: `[health] memory` says nothing of it."""
    return config.model.backend == "vllm" and place.is_gpu


def _reserved_share(config: ModelConfig, place: Place) -> int:
    """vLLM takes a share of the whole device, whatever the model; of ours no more than there is."""
    is_share = preallocates(config, place) and "kv_cache_memory_bytes" not in config.engine
    if not is_share:
        return 0
    share = float(config.engine.get("gpu_memory_utilization", _VLLM_SHARE))
    limit = place.budget_bytes or place.total_bytes
    return int(min(place.total_bytes * share, limit)) * place.count


def _format(config: ModelConfig, settings: dict[str, Any], place: Place) -> Format:
    """What the backend computes in:

    1. Quantised while loading: matrices in so many bits, the rest as below.
    2. The reference engine: float32. A dtype that is asked for: that.
    3. vLLM: 16 bits, also of a checkpoint in float32.
    4. transformers: what config.json says; but on a CPU float32 instead of float16.
    5. Else as stored.
    """
    options, backend = config.optimization, config.model.backend
    bits = 4 if options.load_in_4bit else 8 if options.load_in_8bit else 0  # 1
    if backend == "reference":  # 2
        return Format(4, matrix_bits=bits)
    if options.dtype != "auto":
        return Format(_ITEM_BYTES[options.dtype], matrix_bits=bits)
    if backend == "vllm":  # 3
        return Format(2, matrix_bits=bits)
    if backend != "transformers":  # 5
        return Format(matrix_bits=bits)
    half = 0 if place.is_gpu else 4  # 4
    told = settings.get("dtype") or settings.get("torch_dtype")
    wanted = half if told == "float16" and half else _ITEM_BYTES.get(str(told), 0)
    return Format(wanted, wanted or half, matrix_bits=bits)


def _cache_bytes(config: ModelConfig, path: Path, settings: dict[str, Any], place: Place) -> int:
    """Of the KV cache, by backend:

    1. Models that do not generate have none.
    2. What the config says in bytes.
    3. llama.cpp allocates it for all sequences when it loads.
    4. vLLM on a CPU: what its engine asks for here.
    5. The others let it grow, and make requests wait when memory ends: one request of full length,
       or one step's tokens, whichever is more.
    """
    engine, backend = config.engine, config.model.backend
    if config.model.task != "generate":  # 1
        return 0
    if backend == "vllm" and "kv_cache_memory_bytes" in engine:  # 2
        return int(engine["kv_cache_memory_bytes"])
    if backend == "mlx" and engine.get("kv_cache_mb"):
        return int(engine["kv_cache_mb"]) * MIB
    if backend == "llama_cpp":  # 3
        return _gguf_cache_bytes(config, path)
    if backend == "vllm":  # 4
        quarter = place.budget_bytes // 4
        return min(_VLLM_CPU_KV_BYTES, quarter or _VLLM_CPU_KV_BYTES)
    return _tokens(config, settings) * _token_bytes(config, settings)  # 5


def _tokens(config: ModelConfig, settings: dict[str, Any]) -> int:
    """As many as a cache that grows should have room for."""
    if config.engine.get("kv_cache_tokens"):
        return int(config.engine["kv_cache_tokens"])
    batch = config.optimization
    asked = int(config.engine.get("max_model_len") or 0)
    length = asked or _first(settings, _CONTEXT_KEYS)
    return min(length * batch.max_batch_size, max(asked, batch.max_batch_tokens))


def _token_bytes(config: ModelConfig, settings: dict[str, Any]) -> int:
    """Keys and values of one token, by config.json; 0 where it does not say."""
    heads = _first(settings, _HEAD_KEYS)
    size = _first(settings, _HEAD_SIZE_KEYS) or _first(settings, _WIDTH_KEYS) // max(1, heads)
    kv_heads = _first(settings, _KV_HEAD_KEYS) or heads
    wanted: str = config.optimization.dtype
    if wanted == "auto":
        wanted = str(settings.get("dtype") or settings.get("torch_dtype"))
    item = 4 if config.model.backend == "reference" else _ITEM_BYTES.get(wanted, 2)
    return 2 * _first(settings, _LAYER_KEYS) * kv_heads * size * item


def _gguf_cache_bytes(config: ModelConfig, path: Path) -> int:
    """With `n_ctx` 0 the engine takes what memory allows: at least LEAST_CONTEXT is reserved."""
    options = msgspec.convert(config.engine, LlamaCppOptions)
    file = read_sizes(find_gguf(path))
    usual = _GGUF_TYPES[config.optimization.dtype]
    token = file.cache_bytes(options.type_k or usual, options.type_v or usual)
    trained = file.size("context_length", LEAST_CONTEXT)
    sequences = 1 if options.kv_unified else config.optimization.max_batch_size
    return int(token * (options.n_ctx or min(trained, LEAST_CONTEXT)) * sequences)


def _settings(path: Path) -> dict[str, Any]:
    """Of a folder's config.json, those of its text model first; {} where it makes no sense."""
    with suppress(*_ODD):
        settings = json.loads((path / "config.json").read_text("utf-8"))
        return {**settings, **(settings.get("text_config") or {})}
    return {}


def _first(settings: dict[str, Any], keys: tuple[str, ...]) -> int:
    return next((max(0, int(settings[key])) for key in keys if settings.get(key)), 0)
