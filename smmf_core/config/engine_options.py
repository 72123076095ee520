"""The keys of `[engine]`, one struct per built-in backend, under the engine's own names.

Owns names, types and bounds; must not import an engine. vLLM's are vLLM's own: its worker checks
them.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from smmf_core.config.section import Count, Limit, Seconds, Section

CacheType = Literal["", "f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]
ToolFormat = Literal[
    "", "none", "hermes", "llama3_json", "mistral", "deepseek_v3", "glm4", "internlm", "phi",
    "glm45", "qwen3_coder", "llama4_pythonic",
]  # fmt: skip
ReasoningFormat = Literal["", "none", "deepseek_r1", "qwen3"]


class EchoOptions(Section):
    """`[engine]` of the echo backend."""

    tokens: Count = 32
    text: Literal["words", "echo"] = "words"
    step_ms: Seconds = 0.0
    prefill_ms: Seconds = 0.0
    load_s: Seconds = 0.0
    fail: Annotated[str, msgspec.Meta(pattern=r"^(|load|(crash|hang|error):\d+)$")] = ""
    max_model_len: Count = 32_768
    calls: Count = 1  # of tools, in an answer to a request that brings some
    tool_format: ToolFormat = "hermes"  # how it writes calls of tools
    reasoning_format: ReasoningFormat = ""  # how it writes thoughts, of which it has none itself


class EchoEmbedOptions(Section):
    """`[engine]` of the echo backend under task "embed" or "rerank"."""

    dimensions: Count = 32
    matryoshka: bool = False
    step_ms: Seconds = 0.0
    load_s: Seconds = 0.0
    max_model_len: Count = 8192


class ReferenceOptions(Section):
    """`[engine]` of the reference backend. `max_model_len` 0: what the model's config says."""

    max_model_len: Limit = 0
    chat_template: str = ""  # a Jinja file; "": the model's own
    tool_format: ToolFormat = ""  # how the model writes calls of tools; "": by its family
    reasoning_format: ReasoningFormat = ""  # how it writes its thoughts; "": by its family


class TransformersOptions(Section):
    """`[engine]` of the transformers backend."""

    max_model_len: Limit = 0  # 0: what the model's config says
    kv_cache_tokens: Limit = 0  # of all requests and kept prefixes; 0: what memory allows
    prefix_cache_tokens: Limit = 16_384  # of ended requests, kept for reuse; 0: none
    prefill_tokens: Limit = 0  # prompt tokens of one step; 0: 512 on a CPU, 4096 on a GPU
    chat_template: str = ""  # a Jinja file; "": the model's own
    tool_format: ToolFormat = ""  # how the model writes calls of tools; "": by its family
    reasoning_format: ReasoningFormat = ""  # how it writes its thoughts; "": by its family
    adapters: dict[str, str] = {}  # LoRA: name -> folder
    trust_remote_code: bool = False  # for checkpoints that bring a model file of their own
    device_map: Literal["", "auto", "balanced", "sequential"] = ""  # over several GPUs and the CPU
    quantization: str = ""  # wins over [optimization]
    compile: bool = False  # torch.compile of all but attention; a tiny model gets slower
    threads: Limit = 0  # of a CPU; 0: its cores, shared among the replicas


class LlamaCppOptions(Section):
    """`[engine]` of the llama_cpp backend, under llama.cpp's names."""

    n_ctx: Limit = 0  # tokens of one sequence; 0: the model's own, less where memory is short
    n_batch: Count = 512  # tokens of one step
    n_ubatch: Count = 512  # of them, computed at once
    n_threads: Limit = 0  # 0: one for a tiny model, else the cores shared among the replicas
    n_threads_batch: Limit = 0  # while prompts are computed; 0: like n_threads
    n_gpu_layers: int = -1  # -1: all; without a GPU none
    split_mode: Literal["none", "layer", "row"] = "layer"  # of a model over several GPUs
    main_gpu: Limit = 0
    tensor_split: list[Seconds] = []  # shares of the GPUs
    flash_attn: bool | None = None  # null: where it is to be had, but not with dtype float32
    type_k: CacheType = ""  # of the KV cache; "": by [optimization] dtype, auto is f16
    type_v: CacheType = ""  # quantised: not without flash_attn
    kv_unified: bool = False  # all sequences share n_ctx tokens, none has a cache of its own
    use_mmap: bool = True
    use_mlock: bool = False
    chat_template: str = ""  # a Jinja file; "": the model's own
    tool_format: ToolFormat = ""  # how the model writes calls of tools; "": by its family
    reasoning_format: ReasoningFormat = ""  # how it writes its thoughts; "": by its family
    adapters: dict[str, str] = {}  # LoRA: name -> GGUF file


class MlxOptions(Section):
    """`[engine]` of the mlx backend. `max_model_len` 0: what the model's config says."""

    max_model_len: Limit = 0
    chat_template: str = ""  # a Jinja file; "": the model's own
    tool_format: ToolFormat = ""  # how the model writes calls of tools; "": by its family
    reasoning_format: ReasoningFormat = ""  # how it writes its thoughts; "": by its family
    prefill_step_size: Count = 512  # prompt tokens of one step, padding included
    kv_cache_mb: Limit = 0  # of all running sequences; 0: what memory allows
    prefix_cache_mb: Limit = 256  # caches of ended sequences kept for reuse; 0: none
    adapter_path: str = ""  # one LoRA adapter of mlx-lm for the whole model
    trust_remote_code: bool = False  # for checkpoints that bring a model file of their own


class EmbedOptions(Section):
    """`[engine]` of the transformers backend under task "embed" or "rerank"."""

    max_model_len: Limit = 0  # tokens of one text; 0: what the model's files say
    pooling: Literal[
        "", "cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"
    ] = ""  # "": what the model's files say, else mean
    normalize: bool | None = None  # null: what the model's files say, else true
    matryoshka_dimensions: list[Count] = []  # lengths at which its vectors may be cut
    threads: Limit = 0  # 0: torch's own choice
    trust_remote_code: bool = False


ENGINE_OPTIONS: dict[str, type[Section]] = {
    "echo": EchoOptions,
    "reference": ReferenceOptions,
    "transformers": TransformersOptions,
    "llama_cpp": LlamaCppOptions,
    "mlx": MlxOptions,
}
EMBED_OPTIONS: dict[str, type[Section]] = {
    "echo": EchoEmbedOptions,
    "transformers": EmbedOptions,
    "llama_cpp": LlamaCppOptions,
}


def engine_options(backend: str, task: str) -> type[Section] | None:
    """The struct that checks `[engine]`; None: the engine checks its own."""
    return (ENGINE_OPTIONS if task == "generate" else EMBED_OPTIONS).get(backend)
