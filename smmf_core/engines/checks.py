"""What an engine refuses before it costs a step, said the same way by every engine.

Owns the words; each engine decides which of these apply to it.
"""

from __future__ import annotations

from smmf_core.errors import ApiError
from smmf_core.messages import Submit


def refuse_adapter(submit: Submit) -> None:
    """For engines that cannot choose an adapter per request. Raises ApiError."""
    if submit.adapter:
        text = f"This model's engine takes no adapters per request: {submit.adapter!r}."
        raise ApiError("unsupported_value", text, "model")


def check_tokens(tokens: list[int], vocab_size: int) -> None:
    """Raises ApiError for a token that the model has no embedding of."""
    for token in tokens:
        if not 0 <= token < vocab_size:
            text = f"Token {token} is outside the model's vocabulary of {vocab_size}."
            raise ApiError("invalid_value", text, "prompt")
