"""Which waiting prompts are computed in the next prefill.

Pure: owns the rule, not the queue.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from smmf_core.engines.transformers.batch import Row
from smmf_core.engines.transformers.prefix import MIN_SHARED, shared

_LOOK_AHEAD = 64  # waiting rows; bounds what planning costs
_MAX_PADDING = 1.5  # columns computed over columns wanted


@dataclass(slots=True)
class Candidate:
    row: Row
    found: int  # tokens that another row or a kept prefix has computed


def choose(waiting: Iterable[Candidate], max_tokens: int) -> list[Candidate]:
    """1. The first in the queue. 2. With it those behind it whose columns fit into `max_tokens`
    with little padding. 3. A row waits that shares more with a chosen one than
    is found for it: a step later it copies that. 4. Prompts whose logprobs are wanted go alone."""
    chosen: list[Candidate] = []
    wanted = longest = 0
    for number, candidate in enumerate(waiting):
        row, rest = candidate.row, len(candidate.row.tokens) - candidate.found
        if number == _LOOK_AHEAD:
            break
        width = max(longest, rest)
        if chosen:
            padded = width * (len(chosen) + 1)
            is_large = padded > max_tokens or padded > _MAX_PADDING * (wanted + rest)
            if is_large or row.described is not None or _waits_for(candidate, chosen):
                continue
        chosen.append(candidate)
        wanted, longest = wanted + rest, width
        if row.described is not None:
            break
    return chosen


def _waits_for(candidate: Candidate, chosen: list[Candidate]) -> bool:
    least = max(candidate.found, MIN_SHARED - 1)
    tokens = candidate.row.tokens
    return any(shared(other.row.tokens, tokens) > least for other in chosen)
