"""Ollama's `options` and `format` as fields of OpenAI's bodies.

Owns what each is called there, and which values no engine here can follow.
"""

from __future__ import annotations

from typing import Any

from smmf_core.api.ollama.schema import Options
from smmf_core.api.openai.decode import check_nesting, shown, unknown_value
from smmf_core.errors import ApiError

_SAME = ("temperature", "top_k", "top_p", "min_p", "presence_penalty", "frequency_penalty")
_NEUTRAL = {"mirostat": 0, "tfs_z": 1, "typical_p": 1}  # what leaves a sampler out


def read_options(options: Options | None) -> dict[str, Any]:
    """Fields that OpenAI's bodies share. Raises ApiError (400).

    What `num_predict` -1 and -2 mean is the default: up to the context's end. A negative seed is
    one to be drawn. Penalties look at all tokens, unless `repeat_last_n` says at none.
    """
    if options is None:
        return {}
    _check(options)
    fields = {name: getattr(options, name) for name in _SAME}
    if options.num_predict is not None and options.num_predict > 0:
        fields["max_tokens"] = options.num_predict
    if options.seed is not None and options.seed >= 0:
        fields["seed"] = options.seed
    if options.repeat_penalty is not None and options.repeat_last_n != 0:
        fields["repetition_penalty"] = options.repeat_penalty
    fields["stop"] = options.stop or None
    return fields


def read_format(given: str | dict[str, Any] | None) -> dict[str, Any] | None:
    """A chat's `response_format`: "json" for any object, or a schema. Raises ApiError (400)."""
    if given is None or given == "":
        return None
    if isinstance(given, str):
        if given != "json":
            text = f"Invalid 'format': {shown(given)}. It is 'json' or a JSON schema."
            raise ApiError("invalid_value", text, "format")
        return {"type": "json_object"}
    check_nesting(given, "format")
    wrapper = {"name": "format", "schema": given, "strict": True}
    return {"type": "json_schema", "json_schema": wrapper}


def read_think(think: bool | str | None) -> dict[str, Any]:
    """Whether and how much to think, as a chat template's variables. Raises ApiError (400)."""
    if think is None:
        return {}
    fields: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": think is not False}}
    if isinstance(think, str):
        levels = ("low", "medium", "high", "max")
        if think not in levels:
            raise unknown_value("think", think, levels)
        fields["reasoning_effort"] = think
    return fields


def _check(options: Options) -> None:
    for name, neutral in _NEUTRAL.items():
        value = getattr(options, name)
        if value is not None and value != neutral:
            text = f"Unsupported value: 'options.{name}' must be {neutral}, which leaves it out."
            raise ApiError("unsupported_value", text, f"options.{name}")
    if options.num_predict == 0:
        text = "Invalid 'options.num_predict': expected a positive number, -1 or -2, but got 0."
        raise ApiError("integer_below_min_value", text, "options.num_predict")
