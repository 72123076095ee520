"""The keys of `[engine]`, one struct per built-in backend, under the engine's own names.

Owns names, types and bounds; must not import an engine. vLLM's are vLLM's own: its worker checks
them.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from smmf_core.config.section import Count, Limit, Seconds, Section


class EchoOptions(Section):
    """`[engine]` of the echo backend."""

    tokens: Count = 32
    text: Literal["words", "echo"] = "words"
    step_ms: Seconds = 0.0
    prefill_ms: Seconds = 0.0
    load_s: Seconds = 0.0
    fail: Annotated[str, msgspec.Meta(pattern=r"^(|load|(crash|hang|error):\d+)$")] = ""
    max_model_len: Count = 32_768


class ReferenceOptions(Section):
    """`[engine]` of the reference backend. `max_model_len` 0: what the model's config says."""

    max_model_len: Limit = 0


class TransformersOptions(Section):
    """`[engine]` of the transformers backend."""

    max_model_len: Limit = 0
    adapters: dict[str, str] = {}


class LlamaCppOptions(Section):
    """`[engine]` of the llama_cpp backend."""

    n_ctx: Limit = 0
    adapters: dict[str, str] = {}


class MlxOptions(Section):
    """`[engine]` of the mlx backend. `max_model_len` 0: what the model's config says."""

    max_model_len: Limit = 0
    prefill_step_size: Count = 512  # prompt tokens of one step, padding included
    prefix_cache_mb: Limit = 256  # caches of ended sequences kept for reuse; 0: none
    adapter_path: str = ""  # one LoRA adapter of mlx-lm for the whole model
    trust_remote_code: bool = False  # for checkpoints that bring a model file of their own


class EmbedOptions(Section):
    """`[engine]` of an embedding or rerank model."""

    max_model_len: Limit = 0


ENGINE_OPTIONS: dict[str, type[Section]] = {
    "echo": EchoOptions,
    "reference": ReferenceOptions,
    "transformers": TransformersOptions,
    "llama_cpp": LlamaCppOptions,
    "mlx": MlxOptions,
}
EMBED_OPTIONS: dict[str, type[Section]] = {
    "echo": EchoOptions,
    "transformers": EmbedOptions,
    "llama_cpp": LlamaCppOptions,
}


def engine_options(backend: str, task: str) -> type[Section] | None:
    """The struct that checks `[engine]`; None: the engine checks its own."""
    return (ENGINE_OPTIONS if task == "generate" else EMBED_OPTIONS).get(backend)
