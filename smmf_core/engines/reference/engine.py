"""The reference engine: continuous batching over the numpy model, exact in any batch.

Owns the running sequences and what one step computes; must not know HTTP, rings or text beyond
its model's tokenizer. A sequence that goes on from tokens generated elsewhere yields, bit for bit,
what it would have yielded here (see model.py for what that takes).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from smmf_core.config import ModelConfig
from smmf_core.config.engine_options import ReferenceOptions
from smmf_core.engines.base import EngineSpec, Logprobs, Output, Sequence
from smmf_core.engines.checks import check_tokens, refuse_adapter
from smmf_core.engines.grammar.compiler import Grammars, grammars_of
from smmf_core.engines.prompt.side import load_prompt_side
from smmf_core.engines.prompt.text import read_json
from smmf_core.engines.reference.config import parse_config
from smmf_core.engines.reference.load import load_weights
from smmf_core.engines.reference.model import Array, Cache, Chunk, Llama
from smmf_core.engines.sampling.sampler import Sampler, describe
from smmf_core.errors import ApiError
from smmf_core.messages import Submit

PREFILL_TOKENS = 256  # prompt tokens of one step: bounds how long running answers wait for a joiner


class _Running:
    """One sequence in the batch. `pending` are its tokens that are not yet in the cache."""

    __slots__ = ("cache", "describes_prompt", "pending", "prompt_logprobs", "sampler", "sequence")

    def __init__(self, sequence: Sequence, cache: Cache, sampler: Sampler) -> None:
        self.sequence = sequence
        self.cache = cache
        self.sampler = sampler
        self.pending = sequence.prompt
        self.describes_prompt = sequence.prompt_logprobs is not None  # until the first token
        self.prompt_logprobs: list[Logprobs] = []


class ReferenceEngine:
    """A StepEngine. Each step takes one token of every answer, and up to PREFILL_TOKENS of the
    prompts, in the order in which they joined."""

    spec: EngineSpec

    def __init__(self, config: ModelConfig, options: ReferenceOptions) -> None:
        self._config = config
        self._options = options
        self._running: dict[int, _Running] = {}
        self._failed: list[Output] = []  # told with the next step
        self._model: Llama
        self._grammars: Grammars

    def load(self, progress: Callable[[float], None]) -> None:
        """Raises OSError or ValueError, in one sentence, when the folder holds no such model."""
        folder = Path(self._config.model.path).expanduser()
        path = folder / "config.json"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: this is not a model folder.")
        config = parse_config(read_json(path))
        context_length = self._options.max_model_len or config.context_length
        side = load_prompt_side(folder, self._config)
        tokenizer = side.tokenizer
        if tokenizer.vocab_size > config.vocab_size:
            raise ValueError(
                f"The tokenizer has {tokenizer.vocab_size} tokens, the model {config.vocab_size}."
            )
        weights = load_weights(folder, config, progress)
        self._model = Llama(config, weights, context_length)
        self._grammars = grammars_of(side, config.vocab_size)
        self.spec = EngineSpec(
            context_length,
            tokenizer,
            side.chat_template,
            capabilities=[*side.capabilities, "logprobs", *self._grammars.capabilities],
            check=self._check,
            stop_strings=side.stop_strings,
            tool_format=side.formats.tools,
            reasoning_format=side.formats.thoughts,
        )

    def add(self, sequences: list[Sequence]) -> None:
        tokenizer, config = self.spec.tokenizer, self._model.config
        for sequence in sequences:
            try:
                check_tokens(sequence.prompt, config.vocab_size)
                bound = self._grammars.bind(sequence)
            except ApiError as error:
                self._failed.append(Output(sequence, 0, error=error))
                continue
            prompt = sequence.prompt[: sequence.prompt_len]
            output = sequence.prompt[sequence.prompt_len :]
            sampler = Sampler(
                sequence.params, prompt, output, tokenizer.eos_ids, config.vocab_size, bound
            )
            self._running[sequence.id] = _Running(sequence, Cache(config), sampler)

    def remove(self, sequences: list[Sequence]) -> None:
        for sequence in sequences:
            self._running.pop(sequence.id, None)

    def ready_at(self, now: float) -> float:
        return now if self._running or self._failed else math.inf

    def step(self) -> list[Output]:
        """One forward pass. A sequence that fails is given back with its error and leaves."""
        outputs, self._failed = self._failed, []
        planned = self._plan()
        logits = self._model.forward([chunk for _, chunk in planned]) if planned else []
        for (running, chunk), rows in zip(planned, logits, strict=True):
            if running.describes_prompt:
                self._describe_prompt(running, chunk, rows)
            running.pending = running.pending[len(chunk.tokens) :]
            if not running.pending:
                outputs.append(self._choose(running, rows[-1]))
        return outputs

    def close(self) -> None:
        self._running.clear()

    def _check(self, submit: Submit) -> None:
        refuse_adapter(submit)
        self._grammars.check(submit)

    def _plan(self) -> list[tuple[_Running, Chunk]]:
        """What every sequence computes now: answers one token, prompts share PREFILL_TOKENS."""
        planned: list[tuple[_Running, Chunk]] = []
        budget = PREFILL_TOKENS
        for running in self._running.values():
            tokens = running.pending
            if len(tokens) > 1:
                tokens = tokens[:budget]
                budget -= len(tokens)
            if not tokens:
                continue
            wanted = int(len(tokens) == len(running.pending))
            if running.describes_prompt:
                wanted = len(tokens)
            planned.append((running, Chunk(running.cache, tokens, wanted)))
        return planned

    def _describe_prompt(self, running: _Running, chunk: Chunk, rows: Array) -> None:
        """Logprobs of the request's own prompt: row i foretells token i + 1."""
        sequence, done = running.sequence, running.prompt_logprobs
        best = sequence.prompt_logprobs or 0
        first = running.cache.length - len(chunk.tokens)
        for place, row in enumerate(rows, first):
            if place == len(done) and place + 1 < sequence.prompt_len:
                done.append(describe(row, sequence.prompt[place + 1], best))

    def _choose(self, running: _Running, row: Array) -> Output:
        sequence = running.sequence
        try:
            with np.errstate(all="ignore"):  # infinities and underflow have their meaning here
                token = running.sampler.choose(row)
                best = sequence.params.logprobs
                logprobs = None if best is None else describe(row, token, best)
        except Exception as error:  # this sequence fails, the others go on
            del self._running[sequence.id]
            return Output(sequence, 0, error=error)
        running.pending = [token]
        output = Output(sequence, token, logprobs, ended=running.sampler.is_over)
        if running.describes_prompt:
            output.prompt_logprobs = running.prompt_logprobs
            running.describes_prompt = False
        return output


def create(config: ModelConfig) -> ReferenceEngine:
    """Raises ValueError for an unknown key in `[engine]`."""
    try:
        options = msgspec.convert(config.engine, ReferenceOptions)
    except msgspec.ValidationError as error:
        raise ValueError(f"[engine]: {error}") from None
    return ReferenceEngine(config, options)
