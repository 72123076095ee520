"""Between SMMF's sequences and vLLM's requests: sampling parameters in, tokens and logprobs out.

Owns the translation; must not know how the engine is driven.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

from smmf_core.engines.base import Logprobs, Sequence
from smmf_core.engines.vllm.form import answer_form

_SEED_MASK = (1 << 63) - 1
_SEED_STEP = 0x9E37_79B9_7F4A_7C15  # odd, no pattern: positions give seeds far from each other
_BAN = 100.0  # in OpenAI's API a logit_bias of -100 bans a token, 100 leaves no others


def sampling_params(sequence: Sequence, stop_ids: Iterable[int], tool_format: str) -> Any:
    """vLLM's parameters for the rest of a sequence. `stop_ids` end any answer of this model.

    Stop strings stay with the Worker. A seed that the Router drew is left out: vLLM draws seeded
    rows one by one, and its answers cannot be continued bit for bit in any case. Raises ValueError
    for what vLLM does not take.
    """
    params = sequence.params
    emitted = len(sequence.prompt) - sequence.prompt_len
    most = max(1, sequence.max_new_tokens)  # 0: only the prompt's logprobs are wanted
    ends = set(params.stop_token_ids)
    form = answer_form(sequence.submit, tool_format)
    return SamplingParams(
        max_tokens=most,
        min_tokens=min(most, max(0, params.min_tokens - emitted)),
        temperature=params.temperature,
        top_p=params.top_p or 1.0,
        top_k=params.top_k if params.top_p else 1,  # 0 is the best token; vLLM refuses it
        min_p=params.min_p,
        presence_penalty=params.presence_penalty,
        frequency_penalty=params.frequency_penalty,
        repetition_penalty=params.repetition_penalty,
        **_bias(params.logit_bias or {}),
        seed=seed_at(params.seed, emitted) if params.is_seeded and params.temperature else None,
        stop_token_ids=sorted(ends if params.ignore_eos else ends.union(stop_ids)),
        ignore_eos=params.ignore_eos,
        logprobs=params.logprobs,
        prompt_logprobs=sequence.prompt_logprobs,
        structured_outputs=StructuredOutputsParams(**form) if form else None,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        skip_clone=True,
    )


def _bias(logit_bias: dict[int, float]) -> dict[str, Any]:
    values = {t: -math.inf if value <= -_BAN else value for t, value in logit_bias.items()}
    forced = [token for token, value in logit_bias.items() if value >= _BAN]
    return {"logit_bias": values or None, "allowed_token_ids": forced or None}


def seed_at(seed: int, position: int) -> int:
    """The seed of an answer that goes on at `position`: another one at each, so that a continued
    answer does not draw again what its beginning drew."""
    return (seed + position * _SEED_STEP) & _SEED_MASK


def cached_tokens(answer: Any) -> int:
    """Prompt tokens found in the KV cache, 0 if this output does not say: vLLM up to 0.19 says it
    with each, later ones with the first."""
    stats = getattr(answer, "prefill_stats", None)
    return int(stats.num_cached_tokens if stats else getattr(answer, "num_cached_tokens", 0))


def token_logprobs(lists: Any, row: int, best: int) -> Logprobs:
    """Row `row` of vLLM's table: the chosen token first, then the best ones."""
    ids, values = lists.logprob_token_ids[row], lists.logprobs[row]
    return _logprobs(ids, values, best)


def prompt_logprobs(tensors: Any, count: int, best: int) -> list[Logprobs]:
    """Of the prompt's tokens from the second on, `count` of them."""
    ids, values = tensors.logprob_token_ids.tolist(), tensors.logprobs.tolist()
    return [_logprobs(ids[i], values[i], best) for i in range(count)]


def mapped_logprobs(mapping: dict[int, Any], token: int, best: int) -> Logprobs:
    """From vLLM's front end: token -> Logprob, with ranks that begin at 1."""
    ranked = sorted(mapping.items(), key=lambda item: item[1].rank)
    return mapping[token].logprob, [(t, value.logprob) for t, value in ranked[:best]]


def prompt_rows(rows: list[Any], prompt: list[int], best: int) -> list[Logprobs]:
    """As vLLM's front end gives them: a mapping per token of the prompt, None for the first."""
    return [mapped_logprobs(rows[i], prompt[i], best) for i in range(1, len(prompt))]


def _logprobs(ids: Any, values: Any, best: int) -> Logprobs:
    top = [(int(ids[i]), float(values[i])) for i in range(1, best + 1)]
    return float(values[0]), top
