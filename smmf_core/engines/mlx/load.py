"""An MLX model from a folder: device, memory, weights in their number format, clear refusals.

Owns what happens before the first token; must not know sequences. Weights may be a Hugging Face
checkpoint or one that mlx-lm wrote, quantised ones as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten

from smmf_core.config import ModelConfig
from smmf_core.config.engine_options import MlxOptions
from smmf_core.engines.host_memory import check_weights_fit, free_bytes
from smmf_core.engines.mlx.first_import import (
    load_adapters,
    load_model,
    make_prompt_cache,
    maybe_set_recommended_wired_limit,
)
from smmf_core.engines.mlx.room import Room, measure
from smmf_core.engines.prompt.text import read_json

_DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
_DEFAULT_CONTEXT = 4096  # for checkpoints that do not say
_MEMORY_RESERVE = 1.1  # weights need a little more than their files: buffers, the first cache
_CACHE_SHARE = 0.8  # of the memory that is free beside the weights
_REASON_CHARACTERS = 200  # of mlx's own words in ours: they may list every tensor
_EVAL_BYTES = 256 << 20  # weights read between two reports of progress


@dataclass(slots=True)
class Loaded:
    """A model that has run once. `settings` is its config.json (the text part of it)."""

    model: nn.Module
    settings: dict[str, Any]
    vocab_size: int
    context_length: int
    room: Room


def use_device(device: str) -> str:
    """Make `[deployment] device` the default of all that follows; returns its name.

    Raises ValueError when this machine or this build of mlx does not have it.
    """
    has_metal, has_cuda = mx.metal.is_available(), mx.cuda.is_available()
    if device == "cpu":
        mx.set_default_device(mx.cpu)
    elif device == "mps" and not has_metal:
        raise ValueError("device mps needs Apple silicon: mlx finds no Metal here.")
    elif device.startswith("cuda") and not has_cuda:
        raise ValueError(f"device {device} needs mlx with CUDA (mlx[cuda]), which is not here.")
    elif device != "auto":
        _, _, number = device.partition(":")
        mx.set_default_device(mx.Device(mx.gpu, int(number or 0)))
    if mx.default_device().type == mx.DeviceType.cpu:
        return "cpu"
    return "mps" if has_metal else device.replace("auto", "cuda")


def load(
    folder: Path, config: ModelConfig, options: MlxOptions, progress: Callable[[float], None]
) -> Loaded:
    """Raises OSError, ValueError or MemoryError, in one sentence, for what cannot be loaded."""
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: this is not a model folder.")
    whole = read_json(path)
    if not whole.get("model_type"):
        raise ValueError(f"{path} has no model_type.")
    if whole.get("model_file") and not options.trust_remote_code:
        raise ValueError(f"{path} brings code of its own: it needs [engine] trust_remote_code.")
    _check_memory(folder, config.optimization.dtype, whole)
    model = _read(folder, config, options)
    _check_batchable(model, whole["model_type"])
    _compute(model, folder, progress)
    maybe_set_recommended_wired_limit()
    settings = {**whole, **(whole.get("text_config") or {})}
    found = (settings[key] for key in _CONTEXT_KEYS if isinstance(settings.get(key), int))
    context_length = options.max_model_len or next(found, _DEFAULT_CONTEXT)
    vocab_size, token_bytes, row_bytes = _run_once(model)
    kept = options.prefix_cache_mb << 20
    limit = options.kv_cache_mb << 20 or _available_bytes() * _CACHE_SHARE - kept
    room = Room(limit, token_bytes, row_bytes)
    return Loaded(model, settings, vocab_size, context_length, room)


def _read(folder: Path, config: ModelConfig, options: MlxOptions) -> nn.Module:
    """The model with weights that are not read yet (mlx is lazy)."""
    try:
        model, _ = load_model(folder, lazy=True, trust_remote_code=options.trust_remote_code)
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder} holds no model*.safetensors: no weights.") from None
    except (RuntimeError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} cannot be read: {_in_one_line(error)}") from None
    except ValueError as error:
        raise ValueError(f"{folder} does not fit: {_in_one_line(error)}") from None
    if config.optimization.dtype != "auto":
        model.set_dtype(_DTYPES[config.optimization.dtype])
    if options.adapter_path:
        load_adapters(model, str(Path(options.adapter_path).expanduser()))
        model.eval()
    return model


def _compute(model: nn.Module, folder: Path, progress: Callable[[float], None]) -> None:
    """Read the weights piece by piece, so that progress can be told."""
    arrays = [array for _, array in tree_flatten(model.parameters())]
    total = sum(array.nbytes for array in arrays) or 1
    done = 0
    piece: list[mx.array] = []
    for array in arrays:
        piece.append(array)
        done += array.nbytes
        if sum(part.nbytes for part in piece) >= _EVAL_BYTES or done == total:
            try:
                mx.eval(piece)
            except RuntimeError as error:
                raise ValueError(f"{folder} cannot be read: {_in_one_line(error)}") from None
            progress(done / total)
            piece = []


def _run_once(model: nn.Module) -> tuple[int, int, int]:
    """One forward pass: compiles the kernels and tells sizes: the width of the logits, bytes of the
    caches per token and per row."""
    caches = make_prompt_cache(model)
    logits = model(mx.array([[0]]), cache=caches)
    mx.eval(logits, [cache.state for cache in caches])
    return int(logits.shape[-1]), *measure(caches)


def _check_batchable(model: nn.Module, model_type: str) -> None:
    for cache in make_prompt_cache(model):
        if not hasattr(cache, "merge"):
            kind = type(cache).__name__
            raise ValueError(f"mlx-lm cannot batch models of type {model_type} ({kind}).")


def _check_memory(folder: Path, dtype: str, settings: dict[str, Any]) -> None:
    """The weights must fit before they are read. Raises MemoryError."""
    size = sum(file.stat().st_size for file in folder.glob("model*.safetensors"))
    stored = settings.get("dtype") or settings.get("torch_dtype")
    if dtype == "float32" and stored in ("float16", "bfloat16"):
        size *= 2
    place = "cpu" if mx.default_device().type == mx.DeviceType.cpu else "the GPU"
    check_weights_fit(size * _MEMORY_RESERVE, _available_bytes(), place)


def _available_bytes() -> float:
    if mx.default_device().type != mx.DeviceType.cpu:
        info = mx.device_info()
        limit = info.get("max_recommended_working_set_size") or info.get("memory_size")
        return float(limit) - mx.get_active_memory() if limit else float("inf")
    return float(free_bytes())


def _in_one_line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:_REASON_CHARACTERS]
