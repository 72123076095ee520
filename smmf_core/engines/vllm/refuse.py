"""Why a request of a vLLM engine fails, as the client is told it.

Must not import vLLM.
"""

from __future__ import annotations

from smmf_core.engines.base import EngineDead, EngineSpec, Sequence, Tokenizer
from smmf_core.engines.vllm.args import reason
from smmf_core.engines.vllm.form import refused
from smmf_core.errors import ApiError
from smmf_core.messages import Sampling

_BAN = 100.0  # a logit_bias of -100 bans a token, one of 100 all others


def refusal(error: Exception, sequence: Sequence) -> Exception:
    """Why vLLM did not take a request, as the client is told it."""
    if isinstance(error, ApiError | EngineDead):
        return error
    if not isinstance(error, ValueError) and not hasattr(error, "parameter"):
        return error
    param = getattr(error, "parameter", None)
    text = _sentence(error)
    if param is None and "rammar" in text:  # what it says of grammars names nothing
        found = refused(sequence.submit, text)
        if found is not None:
            return found
    return ApiError("invalid_value", text, param)


def failure(finish: str, has_tokens: bool, nans: int = 0) -> Exception | None:
    """What went wrong with a request that vLLM says something of; `finish` "": it goes on."""
    if nans:
        return RuntimeError("the model's logits are not numbers")
    if finish in ("abort", "error") or (finish and not has_tokens):
        return RuntimeError(f"vLLM ended it with {finish!r}")
    return None


def check_sequence(sequence: Sequence, spec: EngineSpec) -> None:
    """What vLLM would not refuse, but could not answer. Raises ApiError."""
    if len(sequence.prompt) >= spec.context_length:  # it computes a prompt with a token after it
        text = f"The prompt fills the context of {spec.context_length} tokens: no token fits."
        raise ApiError("context_length_exceeded", text, "prompt")
    if not 0 <= min(sequence.prompt) <= max(sequence.prompt) < spec.tokenizer.vocab_size:
        text = f"The prompt has tokens outside the vocabulary of {spec.tokenizer.vocab_size}."
        raise ApiError("invalid_value", text, "prompt")
    if sequence.params.logit_bias and not _leaves_tokens(sequence.params, spec.tokenizer):
        text = "'logit_bias' and 'min_tokens' together leave no token to choose."
        raise ApiError("invalid_value", text, "logit_bias")


def _leaves_tokens(params: Sampling, tokenizer: Tokenizer) -> bool:
    bias = params.logit_bias or {}
    banned = {token for token, value in bias.items() if value <= -_BAN}
    if params.min_tokens:
        banned |= tokenizer.eos_ids
    forced = {token for token, value in bias.items() if value >= _BAN}
    return bool(forced - banned) if forced else len(banned) < tokenizer.vocab_size


def _sentence(error: Exception) -> str:
    """vLLM's errors add their parameter and its value to what they say."""
    return str(error.args[0]) if error.args else reason(error)
