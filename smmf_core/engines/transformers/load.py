"""From a Hugging Face model folder to a model that can compute, by transformers.

Owns the loading, its progress and every way in which it can fail; must not generate.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import set_tqdm_hook

from smmf_core.config import ModelConfig
from smmf_core.config.engine_options import TransformersOptions
from smmf_core.engines.host_memory import is_out_of_memory
from smmf_core.engines.prompt.text import read_json
from smmf_core.engines.transformers.config import context_length, in_one_line, model_class
from smmf_core.engines.transformers.files import stored_tensors, weight_files
from smmf_core.engines.transformers.joint import join
from smmf_core.engines.transformers.memory import check_fits, needed_bytes
from smmf_core.engines.transformers.norms import fuse_norms
from smmf_core.engines.transformers.onednn import pack_layers
from smmf_core.engines.transformers.place import (
    choose_attention,
    choose_device,
    choose_dtype,
    devices_of,
    use_threads,
)
from smmf_core.engines.transformers.quant import plain_kernels, quantization, settings, uncompiled

_WEIGHTS_BAR = "Loading weights"  # what the library calls that bar


@dataclass(slots=True)
class LoadedModel:
    """`device` is where token ids go; a model over several devices (`device_map`) moves them on."""

    model: Any
    device: torch.device
    dtype: torch.dtype
    context_length: int
    vocab_size: int  # rows of the embedding
    config: Any  # transformers' own
    attention: str


def load(
    config: ModelConfig, options: TransformersOptions, progress: Callable[[float], None]
) -> LoadedModel:
    """Raises OSError, ValueError or MemoryError, in one sentence, when that cannot be done."""
    folder = Path(config.model.path).expanduser()
    files = weight_files(folder)
    raw = read_json(folder / "config.json")
    method = quantization(config, raw.get("quantization_config"))
    loader, model_config = model_class(folder, raw, options.trust_remote_code)
    text_config = model_config.get_text_config(decoder=True)
    device = choose_device(config.deployment.device)
    dtype = choose_dtype(config.optimization.dtype, text_config.dtype or model_config.dtype, device)
    placement = options.device_map or {"": device}
    needed = needed_bytes(stored_tensors(files), dtype, method.bits)
    check_fits(needed, devices_of(placement, device))
    if threads := options.threads or _share_of_cores(device, config.deployment.replicas):
        use_threads(threads)
    arguments: dict[str, Any] = {
        "config": model_config,
        "dtype": dtype,
        "device_map": placement,
        "attn_implementation": choose_attention(config.optimization.attention),
        "trust_remote_code": options.trust_remote_code,
        "local_files_only": True,
    }
    if method.bits:
        arguments["quantization_config"] = settings(method, dtype)
    if method.method and device.type == "cpu":
        plain_kernels(model_config)
    model = _from_pretrained(loader, folder, arguments, progress)
    if device.type == "cpu":
        uncompiled(model)
    if options.compile:
        _compile(model)
    elif device.type == "cpu":
        join(model)
        pack_layers(model)
        fuse_norms(model)
    embedding = model.get_input_embeddings().weight
    return LoadedModel(
        model=model,
        device=embedding.device,
        dtype=dtype,
        context_length=options.max_model_len or context_length(text_config),
        vocab_size=embedding.shape[0],
        config=model.config,
        attention=model.config._attn_implementation,
    )


def _share_of_cores(device: torch.device, replicas: int) -> int:
    """Threads of one of several replicas on this CPU; 0: torch's own choice."""
    if device.type != "cpu" or replicas == 1:
        return 0
    return max((os.cpu_count() or 1) // replicas, 1)


def check_tokenizer(tokens: int, loaded: LoadedModel) -> None:
    """Raises ValueError for a tokenizer that makes ids for which the model has no embedding."""
    if tokens > loaded.vocab_size:
        raise ValueError(f"The tokenizer has {tokens} tokens, the model {loaded.vocab_size}.")


def _compile(model: Any) -> None:
    """All of the model's layers but what reads the cache: the cache is a view whose place and size
    change from step to step, for which attention cannot be compiled (as of torch 2.13)."""
    for layers in model.modules():
        if isinstance(layers, torch.nn.ModuleList):
            for part in (part for layer in layers for part in layer.children()):
                if not hasattr(part, "layer_idx"):
                    part.compile(dynamic=True)


def _from_pretrained(
    loader: Any, folder: Path, arguments: dict[str, Any], progress: Callable[[float], None]
) -> Any:
    try:
        with _reported(progress):
            model, info = loader.from_pretrained(
                folder, output_loading_info=True, ignore_mismatched_sizes=True, **arguments
            )
    except Exception as error:  # whatever a library or a folder's code may raise
        raise _explained(error) from error
    _check_complete(model, info)
    return model.eval().requires_grad_(False)


def _explained(error: Exception) -> Exception:
    text = in_one_line(error)
    if is_out_of_memory(error):
        return MemoryError(f"Memory ran out while the weights were loaded: {text}")
    if isinstance(error, OSError):
        return error
    return ValueError(f"transformers cannot load it: {text}")


def _check_complete(model: Any, info: dict[str, Any]) -> None:
    """The library fills what it does not find with random numbers: here it is an error."""
    for name, stored, wanted in sorted(info["mismatched_keys"]):
        raise ValueError(
            f"Tensor {name} has shape {list(stored)}, config.json asks for {list(wanted)}."
        )
    parameters = {name for name, _ in model.named_parameters()}
    missing = sorted(parameters.intersection(info["missing_keys"]))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(f"The weights have no tensor {missing[0]}{more}.")


@contextmanager
def _reported(progress: Callable[[float], None]) -> Iterator[None]:
    """The library's progress bars go to `progress` instead of a terminal."""

    def make_bar(factory: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if kwargs.get("desc") == _WEIGHTS_BAR and args:
            args = (_counted(list(args[0]), progress), *args[1:])
        return factory(*args, **{**kwargs, "disable": True})

    former = set_tqdm_hook(make_bar)
    try:
        yield
    finally:
        set_tqdm_hook(former)


def _counted(items: list[Any], progress: Callable[[float], None]) -> Iterator[Any]:
    """One item per parameter."""
    shown = 0
    for done, item in enumerate(items, 1):
        yield item
        percent = 100 * done // len(items)
        if percent > shown:
            shown = percent
            progress(done / len(items))
