"""One request in the llama.cpp engine: from a row of logits to its next token.

Owns the request's tokens, sampler, grammar and prompt logprobs; must not know the batch.
"""

from __future__ import annotations

import numpy as np

from smmf_core.engines.base import Logprobs, Output, Sequence
from smmf_core.engines.llama_cpp.api import Adapter, Grammar, Model, Rows
from smmf_core.engines.llama_cpp.slots import Slot
from smmf_core.engines.sampling.sampler import Sampler, describe
from smmf_core.messages import Sampling

NOT_FINITE = "the model computed logits that are not finite numbers"


class Running:
    """A sequence, waiting for a slot or in one. `tokens` are its prompt and its answer so far.

    `is_simple`: its choices depend on nothing but logits, parameters and position, so that they
    are made together with those of others.
    """

    __slots__ = (
        "_end_ids",
        "_is_best",
        "_sampler",
        "adapter",
        "describes",
        "grammar",
        "is_simple",
        "number",
        "prompt_logprobs",
        "reports_cached",
        "sequence",
        "slot",
        "tokens",
    )

    def __init__(
        self, number: int, sequence: Sequence, model: Model, end_ids: frozenset[int], grammar: str
    ) -> None:
        """`number` counts the requests. Raises ValueError when the tokens that were generated
        elsewhere do not follow the grammar."""
        params = sequence.params
        prompt = sequence.prompt[: sequence.prompt_len]
        output = sequence.prompt[sequence.prompt_len :]
        self.number = number
        self.sequence = sequence
        self.tokens = list(sequence.prompt)
        self.slot: Slot | None = None
        self.adapter: Adapter | None = None
        self.reports_cached = False
        self.describes = sequence.prompt_logprobs is not None  # until the first token
        self.prompt_logprobs: list[Logprobs] = []
        self._end_ids = end_ids
        self._sampler = Sampler(params, prompt, output, end_ids, model.vocab_size)
        self.grammar: Grammar | None = None
        if grammar:
            self.grammar = Grammar(model, grammar)
            for token in output:
                self.grammar.accept(token)
        is_free = not _is_adjusted(params)
        self._is_best = is_free and (params.temperature == 0 or params.top_p == 0)
        asks_more = params.logprobs is not None or sequence.prompt_logprobs is not None
        self.is_simple = is_free and not asks_more and self.grammar is None

    def describe_prompt(self, first: int, rows: Rows) -> None:
        """Logprobs of the request's own prompt: the row of position i foretells token i + 1."""
        sequence, done = self.sequence, self.prompt_logprobs
        best = sequence.prompt_logprobs or 0
        for place, row in enumerate(rows, first):
            if place == len(done) and place + 1 < sequence.prompt_len:
                done.append(describe(row, sequence.prompt[place + 1], best))

    def choose(self, row: Rows) -> Output:
        """The next token by the request's own settings. Raises what the Sampler raises."""
        sequence = self.sequence
        with np.errstate(all="ignore"):  # infinities and underflow have their meaning here
            token, ended = self._choose(row)
            best = sequence.params.logprobs
            logprobs = None if best is None else describe(row, token, best)
        self.tokens.append(token)
        output = Output(sequence, token, logprobs, ended=ended)
        if self.describes:
            output.prompt_logprobs = self.prompt_logprobs
            self.describes = False
        return output

    def close(self) -> None:
        if self.grammar is not None:
            self.grammar.close()

    def _choose(self, row: Rows) -> tuple[int, bool]:
        """With a grammar: 1. the most likely token of all, if that is wanted and allowed. 2. A text
        that can only end ends, whatever `min_tokens` says. 3. A choice among what is allowed."""
        grammar = self.grammar
        if grammar is None:
            return self._sampler.choose(row), False
        best = int(row.argmax())
        if not np.isfinite(row[best]):
            raise ValueError(NOT_FINITE)
        if self._is_best and best not in self._end_ids and grammar.allows(best):
            grammar.accept(best)
            return best, False
        masked = grammar.mask(row)
        allowed = np.flatnonzero(masked > -np.inf)
        if len(allowed) <= len(self._end_ids) and self._end_ids.issuperset(allowed.tolist()):
            return (int(masked.argmax()) if len(allowed) else min(self._end_ids)), True
        token = self._sampler.choose(masked)
        grammar.accept(token)
        return token, token in self._end_ids


def _is_adjusted(params: Sampling) -> bool:
    """Whether what came before, or a bias, changes the logits."""
    penalties = params.presence_penalty or params.frequency_penalty
    repeats = params.repetition_penalty != 1.0
    return bool(params.logit_bias or params.min_tokens or penalties or repeats)
