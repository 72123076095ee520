"""From a pass's logits to tokens, past the sampler when nothing is to be drawn or changed.

Owns the short way for batches that are all greedy; must not know rows.
"""

from __future__ import annotations

from math import isfinite

import torch

from smmf_core.engines.base import Sequence
from smmf_core.engines.transformers.sampling import BatchSampler, Chosen
from smmf_core.messages import Sampling


def is_plain(params: Sampling) -> bool:
    """Whether the likeliest token is the answer, whatever came before."""
    is_greedy = params.temperature == 0 or params.top_p == 0
    is_changed = params.logit_bias or params.min_tokens or params.repetition_penalty != 1.0
    counts = params.presence_penalty or params.frequency_penalty
    return is_greedy and not is_changed and not counts and params.logprobs is None


class TokenChooser:
    def __init__(self, sampler: BatchSampler) -> None:
        self._sampler = sampler
        self._sequences: list[Sequence] = []  # of the last call
        self._ids: list[int] = []
        self._is_plain = False
        self._is_on_host: bool | None = None  # a model's logits are always in one place

    def choose(self, logits: torch.Tensor, sequences: list[Sequence]) -> Chosen:
        """As BatchSampler.choose. On the CPU numpy's arg max is ten times as fast as torch's."""
        if sequences != self._sequences:
            self._sequences = sequences
            self._ids = [sequence.id for sequence in sequences]
            self._is_plain = all(is_plain(sequence.params) for sequence in sequences)
            self._is_plain = self._is_plain and not self._sampler.binds(self._ids)
        if self._is_on_host is None:
            self._is_on_host = logits.device.type == "cpu"
        if self._is_plain and self._is_on_host:
            rows = (logits if logits.dtype is torch.float32 else logits.float()).numpy()
            tokens = rows.argmax(-1)  # of a NaN its place
            best = map(rows.item, range(len(rows)), tokens.tolist())
            if all(map(isfinite, best)):
                return Chosen(tokens, None, {})
        return self._sampler.choose(logits, self._ids)
