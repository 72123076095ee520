"""The transformers engine: continuous batching over any causal model of the library.

Owns what a Worker asks of an engine and how much memory its cache may take; the loop is in
hf_loop.py. Must not know HTTP, rings, or text beyond its model's tokenizer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import msgspec
import torch
from transformers import AutoModelForCausalLM

from smmf_core.config import ModelConfig
from smmf_core.config.engine_options import TransformersOptions
from smmf_core.engines import embed
from smmf_core.engines.base import EmbedEngine, EngineSpec, Output, Sequence
from smmf_core.engines.checks import check_tokens, refuse_grammar
from smmf_core.engines.hf_batch import Model
from smmf_core.engines.hf_cache import Budget, windows_of
from smmf_core.engines.hf_legacy import legacy_model
from smmf_core.engines.hf_loop import Loop
from smmf_core.engines.hf_prefix import PrefixCache
from smmf_core.engines.hf_probe import probe
from smmf_core.engines.prompt_side import load_prompt_side
from smmf_core.engines.text import read_json
from smmf_core.engines.torch_sampling import BatchSampler
from smmf_core.errors import ApiError


class TransformersEngine:
    """A StepEngine."""

    spec: EngineSpec

    def __init__(self, config: ModelConfig, options: TransformersOptions) -> None:
        self._config = config
        self._options = options
        self._failed: list[Output] = []
        self._vocab_size = 0
        self._loop: Loop

    def load(self, progress: Callable[[float], None]) -> None:
        """Raises OSError, ValueError or MemoryError, in one sentence."""
        folder = Path(self._config.model.path).expanduser()
        side = load_prompt_side(folder, self._config)
        legacy = legacy_model(
            read_json(folder / "config.json"), bool(self._config.engine.get("trust_remote_code"))
        )
        if legacy is not None:
            model = legacy.model.from_pretrained(folder, config=legacy.config, dtype=torch.float32)
        else:
            model = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=torch.float32,
                trust_remote_code=bool(self._config.engine.get("trust_remote_code")),
            )
        model = model.eval()
        self.setup(model, side)

    def setup(self, model, side):
        text = model.config.get_text_config(decoder=True)
        self._vocab_size = text.vocab_size
        context = self._options.max_model_len or getattr(text, "max_position_embeddings", 2048)
        self._sampler = BatchSampler(self._vocab_size)
        budget = Budget(self._options.kv_cache_tokens)
        wrapped = Model(model, model.device, lambda name: None)
        windows = windows_of(model.config) or []
        probe(wrapped, windows, getattr(text, "sliding_window", None), self._vocab_size)
        self._prefixes = PrefixCache(self._options.prefix_cache_tokens, budget)
        self._loop = Loop(
            wrapped,
            windows,
            self._sampler,
            budget,
            self._prefixes,
            self._options.prefill_tokens,
            256,
        )
        self.spec = EngineSpec(
            context, side.tokenizer, side.chat_template, True, ["logprobs", *side.capabilities],
            check=refuse_grammar,
            stop_strings=side.stop_strings,
        )

    def add(self, sequences: list[Sequence]) -> None:
        for sequence in sequences:
            try:
                check_tokens(sequence.prompt, self._vocab_size)
                self._sampler.add(
                    sequence.id,
                    sequence.params,
                    sequence.prompt[: sequence.prompt_len],
                    sequence.prompt[sequence.prompt_len :],
                    self.spec.tokenizer.eos_ids,
                )
                self._loop.add(sequence, sequence.submit.adapter)
            except ApiError as error:
                self._failed.append(Output(sequence, 0, error=error))

    def remove(self, sequences: list[Sequence]) -> None:
        gone = {sequence.id for sequence in sequences}
        self._failed = [output for output in self._failed if output.sequence.id not in gone]
        self._sampler.remove(gone)
        with torch.inference_mode():
            self._loop.remove(gone)

    def step(self) -> list[Output]:
        """One pass over the answers, one over prompts. What fails is given back with its error."""
        outputs, self._failed = self._failed, []
        with torch.inference_mode():
            return outputs + self._loop.step()

    def ready_at(self, now: float) -> float:
        return now if self._failed or self._loop.waiting or self._loop.running else math.inf

    def close(self) -> None:
        self._loop.close()


def create(config: ModelConfig) -> TransformersEngine | EmbedEngine:
    """Raises ValueError for an unknown key in `[engine]`."""
    if config.model.task != "generate":
        return embed.create(config)
    try:
        options = msgspec.convert(config.engine, TransformersOptions)
    except msgspec.ValidationError as error:
        raise ValueError(f"[engine]: {error}") from None
    return TransformersEngine(config, options)
