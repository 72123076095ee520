"""Logprobs of prompt tokens, many at once.

Pure.
"""

from __future__ import annotations

import torch

from smmf_core.engines.base import Logprobs


def describe_rows(logits: torch.Tensor, tokens: list[int], best: int) -> list[Logprobs]:
    """Log-softmax of raw logits, row by row: of the token that followed, and the `best` ones."""
    if not tokens:
        return []
    wide = logits[: len(tokens)].double().log_softmax(-1)
    following = torch.tensor(tokens, device=wide.device)[:, None]
    chosen = wide.gather(1, following)[:, 0].tolist()
    if not best:
        return [(logprob, []) for logprob in chosen]
    top = wide.topk(min(best, wide.shape[1]))
    pairs = zip(chosen, top.indices.tolist(), top.values.tolist(), strict=True)
    return [(logprob, list(zip(ids, values, strict=True))) for logprob, ids, values in pairs]
