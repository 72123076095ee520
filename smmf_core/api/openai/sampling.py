"""How a request's tokens are to be chosen: the client's values, else the model's, else OpenAI's.

Owns the precedence (0 and false count as given) and the rules between lengths; must not know
engines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from smmf_core.api.openai.decode import clip
from smmf_core.api.openai.schema import Body
from smmf_core.errors import ApiError
from smmf_core.messages import Sampling

_SEED_MASK = (1 << 64) - 1
_SHOWN_KEYS = 10
_PLAIN = frozenset(
    {
        "max_tokens", "min_tokens", "temperature", "top_p", "top_k", "min_p", "presence_penalty",
        "frequency_penalty", "repetition_penalty", "stop_token_ids", "ignore_eos",
    }
)  # fmt: skip


def build_sampling(
    body: Body,
    defaults: dict[str, Any],
    logprobs: int | None,
    max_tokens: int | None,
    draw_seed: Callable[[], int],
) -> Sampling:
    """Raises ApiError (400) when `min_tokens` is above the limit.

    `max_tokens` is the dialect's own default, after the model's.
    """
    sampling = Sampling(max_tokens=max_tokens, logprobs=logprobs)
    for name, value in defaults.items():
        if name in _PLAIN:
            setattr(sampling, name, value)
    _set_given(sampling, body)
    sampling.top_k = max(0, sampling.top_k)
    limit = sampling.max_tokens
    if sampling.min_tokens and limit is not None and sampling.min_tokens > limit:
        if body.min_tokens is not None:
            text = f"'min_tokens' ({body.min_tokens}) must not be above the {limit} tokens allowed."
            raise ApiError("invalid_value", text, "min_tokens")
        sampling.min_tokens = limit
    seed = defaults.get("seed") if body.seed is None else body.seed
    sampling.seed = draw_seed() if seed is None else seed & _SEED_MASK
    sampling.is_seeded = seed is not None
    stop = defaults.get("stop") if body.stop is None else body.stop
    if stop:
        sampling.stop = [stop] if isinstance(stop, str) else stop
    return sampling


def _set_given(sampling: Sampling, body: Body) -> None:
    """What the client said. Most say little: one test a field is cheaper than a loop over them."""
    if body.max_completion_tokens is not None:
        sampling.max_tokens = body.max_completion_tokens
    elif body.max_tokens is not None:
        sampling.max_tokens = body.max_tokens
    if body.min_tokens is not None:
        sampling.min_tokens = body.min_tokens
    if body.temperature is not None:
        sampling.temperature = body.temperature
    if body.top_p is not None:
        sampling.top_p = body.top_p
    if body.top_k is not None:
        sampling.top_k = body.top_k
    if body.min_p is not None:
        sampling.min_p = body.min_p
    if body.presence_penalty is not None:
        sampling.presence_penalty = body.presence_penalty
    if body.frequency_penalty is not None:
        sampling.frequency_penalty = body.frequency_penalty
    if body.repetition_penalty is not None:
        sampling.repetition_penalty = body.repetition_penalty
    if body.logit_bias:
        sampling.logit_bias = _logit_bias(body.logit_bias)
    if body.stop_token_ids is not None:
        sampling.stop_token_ids = body.stop_token_ids
    if body.include_stop_str_in_output:
        sampling.include_stop = True
    if body.ignore_eos is not None:
        sampling.ignore_eos = body.ignore_eos


def check_logit_bias(bias: dict[str, float]) -> None:
    """Raises ApiError (400) naming the keys that are no token ids."""
    bad = [key for key in bias if not _is_token_id(key)]
    if bad:
        more = f" and {len(bad) - _SHOWN_KEYS} more" if len(bad) > _SHOWN_KEYS else ""
        named = clip(", ".join(f"'{key[:_SHOWN_KEYS]}'" for key in bad[:_SHOWN_KEYS]))
        text = f"Invalid 'logit_bias': keys must be token ids, but got {named}{more}."
        raise ApiError("invalid_value", text, "logit_bias")


def _is_token_id(key: str) -> bool:
    return key.isdecimal() and key.isascii() and len(key) <= 10 and int(key) < 1 << 31


def _logit_bias(bias: dict[str, float]) -> dict[int, float]:
    return {int(key): value for key, value in bias.items()}
