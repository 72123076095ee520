"""Loading for the llama.cpp engines: settings, the file's own sizes, memory, model and context.

Owns what is decided before llama.cpp is called; must not run a request.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from smmf_core.adapters import BaseModelAdapter
from smmf_core.config import ModelConfig
from smmf_core.config.engine_options import LlamaCppOptions
from smmf_core.engines.base import EngineSpec
from smmf_core.engines.host_memory import free_bytes
from smmf_core.engines.llama_cpp import api
from smmf_core.engines.llama_cpp.gguf_file import (
    LEAST_CONTEXT,
    GgufFile,
    find_gguf,
    read_parts,
)
from smmf_core.engines.llama_cpp.gguf_text import GgufTokenizer, read_chat_template, template_tokens
from smmf_core.engines.llama_cpp.grammar import Grammars
from smmf_core.engines.prompt.side import (
    adapter_of,
    capabilities_of,
    choose_template,
    formats_of,
    stop_strings_of,
)

GPU = "mps" if sys.platform == "darwin" else "cuda"
_TINY_MODEL_BYTES = 64 << 20  # below, a second thread costs more than it computes
_CONTEXT_STEP = 256  # llama.cpp rounds a sequence's cache up to this
_CACHE_SHARE = 0.5  # of the memory left beside the weights, when the context is chosen by it
_CACHE_TYPES: dict[str, Any] = {
    "auto": "f16",
    "float16": "f16",
    "bfloat16": "bf16",
    "float32": "f32",
}
_SIZES = ("block_count", "embedding_length", "context_length")
_NO_MODELS = {"adapter": "a LoRA adapter", "mmproj": "a projector of images"}


@dataclass(slots=True)
class Loaded:
    model: api.Model
    context: api.Context
    spec: EngineSpec
    grammars: Grammars
    slots: int

    def close(self) -> None:
        self.context.close()
        self.model.close()


def read_options(config: ModelConfig) -> LlamaCppOptions:
    """The settings, all of them chosen. Raises ValueError for what does not fit together."""
    try:
        options = msgspec.convert(config.engine, LlamaCppOptions)
    except msgspec.ValidationError as error:
        raise ValueError(f"[engine]: {error}") from None
    usual = _CACHE_TYPES[config.optimization.dtype]
    options.type_k, options.type_v = options.type_k or usual, options.type_v or usual
    if options.flash_attn is None and config.optimization.dtype == "float32":
        options.flash_attn = False  # its kernels round, and choose by the size of the batch
    if options.type_v not in _CACHE_TYPES.values() and options.flash_attn is False:
        raise ValueError(f"[engine] type_v = {options.type_v!r} needs flash_attn = true.")
    wanted = config.optimization
    if wanted.load_in_8bit or wanted.load_in_4bit or wanted.quantization:
        raise ValueError("A GGUF file is quantised already: take one of the wanted kind.")
    return options


def load_model(
    config: ModelConfig, options: LlamaCppOptions, progress: Callable[[float], None]
) -> Loaded:
    """A model that generates, with its context. Raises OSError, ValueError, MemoryError."""
    file = check_file(config)
    slots = config.optimization.max_batch_size
    if slots > api.max_sequences():
        text = f"max_batch_size is {slots}; llama.cpp takes {api.max_sequences()} sequences."
        raise ValueError(text)
    if file.values.get(f"{file.architecture}.attention.causal", True) is False:
        text = f"{file.path.name} ({file.architecture}) generates no text: give it task = 'embed'."
        raise ValueError(text)
    on_gpu = uses_gpu(config, options)
    length = choose_context(file, options, 1 if options.kv_unified else slots, on_gpu)
    model = api.Model(file.path, model_settings(config, options, on_gpu), progress)
    try:
        if model.has_encoder:
            raise ValueError(f"{file.path.name} has an encoder: such models are not served here.")
        settings = context_settings(options, slots) | thread_settings(config, options, file)
        context, length = _open_context(model, settings, length, options)
        adapter = adapter_of(config, file.architecture, [])
        spec = _spec(config, model, adapter, length, on_gpu)
    except BaseException:
        model.close()
        raise
    return Loaded(model, context, spec, Grammars(model, spec.tool_format), slots)


def context_settings(options: LlamaCppOptions, slots: int) -> dict[str, Any]:
    """For llama_context_params, but for n_ctx and the threads."""
    batch_tokens = max(options.n_batch, slots)
    return {
        "n_seq_max": slots,
        "n_batch": batch_tokens,
        "n_ubatch": min(options.n_ubatch, batch_tokens),
        "flash_attn_type": api.FLASH_ATTENTION[options.flash_attn],
        "type_k": api.CACHE_TYPES[options.type_k],
        "type_v": api.CACHE_TYPES[options.type_v],
        "kv_unified": options.kv_unified,
    }


def _open_context(
    model: api.Model, settings: dict[str, Any], length: int, options: LlamaCppOptions
) -> tuple[api.Context, int]:
    """A length that was not asked for is halved until llama.cpp finds the memory."""
    caches = 1 if options.kv_unified else settings["n_seq_max"]
    while True:
        try:
            return api.Context(model, {**settings, "n_ctx": _rounded(length) * caches}), length
        except ValueError:
            if options.n_ctx or length // 2 < LEAST_CONTEXT:
                raise
            length //= 2


def _spec(
    config: ModelConfig, model: api.Model, adapter: BaseModelAdapter, length: int, on_gpu: bool
) -> EngineSpec:
    """The prompt side: what the file says, else what its family does."""
    tokenizer = GgufTokenizer(model)
    own = read_chat_template(model)
    template = choose_template(config, own, adapter, template_tokens(model))
    stops = map(tokenizer.token_id, adapter.stop_tokens())
    tokenizer.end_with(frozenset(token for token in stops if token is not None))
    more = ["logprobs", "structured_output", "adapters"]
    formats = formats_of(config, template, adapter)
    return EngineSpec(
        context_length=length,
        tokenizer=tokenizer,
        chat_template=template,
        capabilities=[*capabilities_of(template, adapter, formats), *more],
        device=GPU if on_gpu else "cpu",
        stop_strings=stop_strings_of(config, own, adapter),
        tool_format=formats.tools,
        reasoning_format=formats.thoughts,
    )


def check_file(config: ModelConfig) -> GgufFile:
    """The model's file, if its header is sound. Raises OSError, ValueError."""
    path = find_gguf(Path(config.model.path).expanduser())
    file = read_parts(path)
    kind = file.values.get("general.type", "model")
    if kind in _NO_MODELS:
        raise ValueError(f"{path} is {_NO_MODELS[kind]}, not a model.")
    if not file.architecture:
        raise ValueError(f"{path} does not name its architecture.")
    for key in _SIZES:  # llama.cpp aborts without
        if file.values.get(f"{file.architecture}.{key}", 1) == 0:
            raise ValueError(f"{path} is damaged: its {key} is 0.")
    vocabulary = file.lengths.get("tokenizer.ggml.tokens", 0)
    for key, value in file.values.items():
        if key.startswith("tokenizer.ggml.") and key.endswith("_token_id") and value >= vocabulary:
            raise ValueError(f"{path} is damaged: {key} is {value} of {vocabulary} tokens.")
    return file


def uses_gpu(config: ModelConfig, options: LlamaCppOptions) -> bool:
    """Raises ValueError when a GPU is asked for that this build of llama.cpp cannot use."""
    device = config.deployment.device
    if device == "cpu" or options.n_gpu_layers == 0:
        return False
    if device != "auto" and not api.supports_gpu():
        raise ValueError(f"device is {device}, but llama.cpp was built without GPU support.")
    return api.supports_gpu()


def model_settings(config: ModelConfig, options: LlamaCppOptions, on_gpu: bool) -> dict[str, Any]:
    """For llama_model_params."""
    settings: dict[str, Any] = {
        "n_gpu_layers": options.n_gpu_layers if on_gpu else 0,
        "split_mode": api.SPLIT_MODES[options.split_mode],
        "main_gpu": options.main_gpu,
        "tensor_split": options.tensor_split,
        "load_mode": options.use_mmap + 2 * options.use_mlock,  # llama_load_mode: bits
    }
    _, _, index = config.deployment.device.partition(":")
    if index:  # one certain GPU
        settings |= {"split_mode": api.SPLIT_MODES["none"], "main_gpu": int(index)}
    return settings


def thread_settings(
    config: ModelConfig, options: LlamaCppOptions, file: GgufFile
) -> dict[str, int]:
    """For llama_context_params."""
    threads = options.n_threads
    if not threads and file.tensor_bytes < _TINY_MODEL_BYTES:
        threads = 1
    if not threads:
        threads = max(1, physical_cores() // max(1, config.deployment.replicas))
    return {"n_threads": threads, "n_threads_batch": options.n_threads_batch or threads}


def physical_cores() -> int:
    """Of those that this process may use; all, where the system does not say."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores = set()
    for cpu in os.sched_getaffinity(0):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.add(siblings.read_text() if siblings.is_file() else str(cpu))
    return len(cores)


def choose_context(file: GgufFile, options: LlamaCppOptions, caches: int, on_gpu: bool) -> int:
    """Tokens of one sequence.

    1. `n_ctx`. 2. What the model was trained for. 3. On a CPU less, where the caches of all
    sequences do not fit into memory. Raises MemoryError when the memory cannot do.
    """
    trained = file.size("context_length", LEAST_CONTEXT)
    wanted = options.n_ctx or trained
    if on_gpu:  # llama.cpp's own allocation tells
        return wanted
    token = file.cache_bytes(options.type_k, options.type_v)
    available = free_bytes()
    free = available - file.tensor_bytes
    if options.n_ctx == 0:
        fitting = int(free * _CACHE_SHARE / (token * caches)) if token else wanted
        if free > 0 and fitting >= wanted:
            return wanted
        wanted = max(fitting // _CONTEXT_STEP * _CONTEXT_STEP, min(trained, LEAST_CONTEXT))
    if free >= token * wanted * caches:
        return wanted
    need = file.tensor_bytes + token * wanted * caches
    raise MemoryError(
        f"{file.path.name} needs {_gib(need)} GiB ({_gib(file.tensor_bytes)} of weights, the rest"
        f" for {caches} caches of {wanted} tokens);"
        f" {_gib(available)} GiB are available: lower n_ctx or max_batch_size."
    )


def _rounded(tokens: int) -> int:
    return -(-tokens // _CONTEXT_STEP) * _CONTEXT_STEP


def _gib(size: float) -> str:
    return f"{size / (1 << 30):.1f}"
