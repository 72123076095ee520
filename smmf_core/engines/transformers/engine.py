"""The transformers engine: continuous batching over any causal model of the library.

Owns what a Worker asks of an engine, the adapters that are wanted, and how much memory the cache
may take; must not know HTTP, rings, or text beyond its model's tokenizer.

The loop (loop.py) is our own: the library's `generate` cannot let a request join, and its
`generate_batch` has a scheduler and threads of its own. All rows share one cache that the model
takes for one of the library's, aligned on their last column (cache.py). Packing rows without
padding instead would need an attention function of our own, which models with alibi, soft caps or
latent attention do not call the same way; here every architecture runs its own code unchanged.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch

from smmf_core.config import ModelConfig
from smmf_core.config.engine_options import TransformersOptions
from smmf_core.engines.base import EmbedEngine, EngineDead, EngineSpec, Output, Sequence
from smmf_core.engines.checks import check_tokens
from smmf_core.engines.embed import engine as embed
from smmf_core.engines.grammar.compiler import Grammars, grammars_of
from smmf_core.engines.prompt.side import PromptSide, load_prompt_side
from smmf_core.engines.transformers import load as hf_load
from smmf_core.engines.transformers.batch import Model
from smmf_core.engines.transformers.cache import Budget, windows_of
from smmf_core.engines.transformers.loop import Loop
from smmf_core.engines.transformers.lora import AdapterSet
from smmf_core.engines.transformers.memory import free_bytes
from smmf_core.engines.transformers.prefix import PrefixCache
from smmf_core.engines.transformers.probe import probe
from smmf_core.engines.transformers.sampling import BatchSampler
from smmf_core.errors import ApiError
from smmf_core.messages import Submit

_log = logging.getLogger("smmf.transformers")

_CPU_SHARE = 0.5  # of the memory that is free after loading: other processes live there
_GPU_SHARE = 0.8  # the rest is what a pass itself needs
_PREFIX_PART = 4  # at most a quarter of the cache is kept for prompts to come
_CPU_PREFILL_TOKENS = 512  # of one step
_GPU_PREFILL_TOKENS = 4096  # a GPU is not busy with fewer


class TransformersEngine:
    """A StepEngine. Each step takes one token of every answer, and a chunk of the prompts."""

    spec: EngineSpec

    def __init__(self, config: ModelConfig, options: TransformersOptions) -> None:
        self._config = config
        self._options = options
        self._failed: list[Output] = []
        self._adapters: AdapterSet
        self._wanted: dict[str, str] = {}  # adapters: name -> folder
        self._held: dict[str, str] = {}
        self._vocab_size = 0
        self._sampler: BatchSampler
        self._grammars: Grammars
        self._prefixes: PrefixCache
        self._loop: Loop

    # --- StepEngine ---

    def load(self, progress: Callable[[float], None]) -> None:
        """Raises OSError, ValueError or MemoryError, in one sentence."""
        side = load_prompt_side(Path(self._config.model.path).expanduser(), self._config)
        loaded = hf_load.load(self._config, self._options, progress)
        hf_load.check_tokenizer(side.tokenizer.vocab_size, loaded)
        self.use(loaded, side)
        self.set_adapters(self._options.adapters)

    def use(self, loaded: hf_load.LoadedModel, side: PromptSide) -> None:
        """Take a model that is loaded. Raises ValueError for one that the loop cannot run."""
        options = self._options
        self._vocab_size = loaded.vocab_size
        self._adapters = AdapterSet(loaded.model)
        self._sampler = BatchSampler(loaded.vocab_size)
        self._grammars = grammars_of(side, loaded.vocab_size)
        model = Model(loaded.model, loaded.device, self._adapters.select)
        whole = getattr(loaded.model, "reads_prompt_whole", False)  # ChatGLM 1
        windows = None if whole else windows_of(loaded.config)
        text = loaded.config.get_text_config(decoder=True)
        window = getattr(text, "sliding_window", None)
        sizes = probe(model, windows, window, loaded.vocab_size) if windows else {}
        limit = options.kv_cache_tokens or _room(sizes)
        budget = Budget(limit)
        kept = options.prefix_cache_tokens if windows else 0
        kept = min(kept, limit // _PREFIX_PART) if limit else kept
        self._prefixes = PrefixCache(kept, budget)
        default = _CPU_PREFILL_TOKENS if model.is_on_host else _GPU_PREFILL_TOKENS
        prefill_tokens = options.prefill_tokens or default
        self._loop = Loop(
            model,
            windows,
            self._sampler,
            budget,
            self._prefixes,
            prefill_tokens,
            _long_from(text),
        )
        context = loaded.context_length
        self.spec = EngineSpec(
            min(context, limit) if limit else context,
            side.tokenizer,
            side.chat_template,
            capabilities=["logprobs", "adapters", *side.capabilities, *self._grammars.capabilities],
            check=self._check,
            device=str(loaded.device),
            stop_strings=side.stop_strings,
            tool_format=side.formats.tools,
            reasoning_format=side.formats.thoughts,
        )

    def set_adapters(self, adapters: dict[str, str]) -> None:
        """Those that sequences use stay until these have ended. Raises OSError or ValueError for
        one that cannot be loaded, which is then not wanted any more."""
        self._wanted = dict(adapters)
        try:
            self._apply_adapters()
        except (OSError, ValueError):
            self._wanted = {name: path for name, path in adapters.items() if name in self._held}
            raise

    def add(self, sequences: list[Sequence]) -> None:
        for sequence in sequences:
            try:
                self._check_adapter(sequence.submit.adapter)
                check_tokens(sequence.prompt, self._vocab_size)
                self._sampler.add(
                    sequence.id,
                    sequence.params,
                    sequence.prompt[: sequence.prompt_len],
                    sequence.prompt[sequence.prompt_len :],
                    self.spec.tokenizer.eos_ids,
                    self._grammars.bind(sequence),
                )
                self._loop.add(sequence, sequence.submit.adapter)
            except Exception as error:  # this sequence fails, the others go on
                self._failed.append(Output(sequence, 0, error=error))

    def remove(self, sequences: list[Sequence]) -> None:
        gone = {sequence.id for sequence in sequences}
        self._failed = [output for output in self._failed if output.sequence.id not in gone]
        self._sampler.remove(gone)
        with torch.inference_mode():
            self._loop.remove(gone)
        if self._held != self._wanted:
            try:
                self.set_adapters(self._wanted)
            except (OSError, ValueError) as error:  # the requests that ended are not at fault
                _log.warning("%s", error)

    def step(self) -> list[Output]:
        """One pass over the answers, one over prompts. What fails is given back with its error.

        Raises EngineDead when the device computes nothing any more.
        """
        outputs, self._failed = self._failed, []
        try:
            with torch.inference_mode():
                return outputs + self._loop.step()
        except EngineDead as error:
            error.untouched = [s for row in self._loop.waiting for s in row.sequences]
            raise

    def ready_at(self, now: float) -> float:
        return now if self._failed or self._loop.waiting or self._loop.running else math.inf

    def metrics(self) -> dict[str, float]:
        budget = self._loop.budget
        return {
            "kv_cache_tokens": budget.used,
            "kv_cache_tokens_limit": budget.limit,
            "prefix_cache_tokens": self._prefixes.tokens,
            "prefix_reused_tokens": self._loop.reuse.tokens,
            "waiting_rows": len(self._loop.waiting),
            "running_rows": self._loop.running,
            "preemptions": self._loop.preemptions,
        }

    def close(self) -> None:
        self._failed.clear()
        self._loop.close()

    # --- inside ---

    def _check(self, submit: Submit) -> None:
        self._check_adapter(submit.adapter)
        self._grammars.check(submit)

    def _check_adapter(self, name: str) -> None:
        if name and name not in self._adapters:
            known = ", ".join(self._held) or "none"
            text = f"This model has no adapter {name!r}; it has: {known}."
            raise ApiError("model_not_found", text, "model")

    def _apply_adapters(self) -> None:
        """What a former adapter of a name computed is of no use to the one that takes its place."""
        in_use = frozenset(self._loop.adapters())
        try:
            self._adapters.set(self._wanted, in_use)
        finally:
            held = {name: path for name, path in self._held.items() if name in in_use}
            for name, path in self._wanted.items():
                if name in self._adapters and name not in held:
                    held[name] = path
            for name in {name for name, path in self._held.items() if held.get(name) != path}:
                self._prefixes.drop_adapter(name)
            self._held = held


def _room(sizes: dict[torch.device, int]) -> int:
    """Tokens of cache that the devices have memory for; `sizes`: bytes of one; 0: unknown."""
    tokens: list[int] = []
    for device, size in sizes.items():
        share = _CPU_SHARE if device.type == "cpu" else _GPU_SHARE
        tokens.append(int(free_bytes(device) * share / size))
    return min(tokens, default=0)


def _long_from(config: Any) -> int:
    """Tokens above which texts are rotated with other frequencies (longrope); 0: none are."""
    parameters = getattr(config, "rope_parameters", None) or {}
    if parameters.get("rope_type") != "longrope":
        return 0
    return int(parameters.get("original_max_position_embeddings") or 0)


def create(config: ModelConfig) -> TransformersEngine | EmbedEngine:
    """Raises ValueError for an unknown key in `[engine]`."""
    if config.model.task != "generate":
        return embed.create(config)
    try:
        options = msgspec.convert(config.engine, TransformersOptions)
    except msgspec.ValidationError as error:
        raise ValueError(f"[engine]: {error}") from None
    return TransformersEngine(config, options)
