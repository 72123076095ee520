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
    get = defaults.get

    def first(given: Any, name: str, default: Any) -> Any:
        return get(name, default) if given is None else given

    limit = body.max_completion_tokens
    if limit is None:
        limit = body.max_tokens
    limit = first(limit, "max_tokens", max_tokens)
    min_tokens = first(body.min_tokens, "min_tokens", 0)
    if min_tokens and limit is not None and min_tokens > limit:
        if body.min_tokens is not None:
            text = f"'min_tokens' ({min_tokens}) must not be above the {limit} tokens allowed."
            raise ApiError("invalid_value", text, "min_tokens")
        min_tokens = limit
    seed = first(body.seed, "seed", None)
    stop = first(body.stop, "stop", None)
    return Sampling(
        max_tokens=limit,
        min_tokens=min_tokens,
        temperature=first(body.temperature, "temperature", 1.0),
        top_p=first(body.top_p, "top_p", 1.0),
        top_k=max(0, first(body.top_k, "top_k", 0)),
        min_p=first(body.min_p, "min_p", 0.0),
        presence_penalty=first(body.presence_penalty, "presence_penalty", 0.0),
        frequency_penalty=first(body.frequency_penalty, "frequency_penalty", 0.0),
        repetition_penalty=first(body.repetition_penalty, "repetition_penalty", 1.0),
        logit_bias=_logit_bias(body.logit_bias) if body.logit_bias else None,
        seed=draw_seed() if seed is None else seed & _SEED_MASK,
        is_seeded=seed is not None,
        stop=[stop] if isinstance(stop, str) else stop or [],
        stop_token_ids=first(body.stop_token_ids, "stop_token_ids", None) or [],
        include_stop=body.include_stop_str_in_output is True,
        ignore_eos=first(body.ignore_eos, "ignore_eos", False),
        logprobs=logprobs,
    )


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
