"""What SMMF adds to OpenAI's bodies: `keep_alive`, and the requirements of `smmf.require`.

Owns their forms; must not know which models there are.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from smmf_core.api.openai.decode import clip, invalid_type
from smmf_core.config.durations import span_s
from smmf_core.errors import ApiError

FOR_EVER = -1.0
_COUNT = "a positive integer"
_FORMS = {
    "context_length": _COUNT,
    "tools": "a boolean",
    "vision": "a boolean",
    "reasoning": "a boolean",
    "embedding_dimension": _COUNT,
    "max_cost": "a number",
}


class Require(msgspec.Struct, gc=False):
    """What a request asks of whichever model answers it; the default of each asks nothing."""

    context_length: int = 0  # at least
    tools: bool = False
    vision: bool = False
    reasoning: bool = False
    embedding_dimension: int = 0  # exactly
    max_cost: float = math.inf


def keep_alive_seconds(given: str | float | None) -> float | None:
    """How long the model is to stay loaded after this request; FOR_EVER, or None: as it is set.

    Ollama's forms: seconds, or "5m"; negative ones are for ever. Raises ApiError (400).
    """
    if given is None:
        return None
    try:
        seconds = span_s(given)
    except ValueError as error:
        text = f"Invalid 'keep_alive': {error}."
        raise ApiError("invalid_value", text, "keep_alive") from None
    return FOR_EVER if seconds == math.inf else seconds


def parse_require(smmf: dict[str, Any] | None) -> Require | None:
    """`smmf.require` as it was given, None without it. Raises ApiError (400) naming what may be."""
    if smmf is None:
        return None
    for key in smmf:
        if key != "require":
            text = f"Unknown parameter: 'smmf.{clip(key)}'. 'smmf' holds 'require'."
            raise ApiError("unsupported_parameter", text, f"smmf.{clip(key)}")
    given = smmf.get("require")
    if given is None:
        return None
    if not isinstance(given, dict):
        raise invalid_type("smmf.require", "an object", given)
    return Require(**{name: _value(name, value) for name, value in given.items()})


def _value(name: str, value: Any) -> Any:
    param = f"smmf.require.{clip(name)}"
    form = _FORMS.get(name)
    if form is None:
        known = ", ".join(f"'{known}'" for known in _FORMS)
        text = f"Unknown requirement: '{clip(name)}'. Requirements are: {known}."
        raise ApiError("unsupported_parameter", text, param)
    is_bool = isinstance(value, bool)
    if form == "a boolean":
        is_right = is_bool
    elif form == _COUNT:
        is_right = isinstance(value, int) and not is_bool and value > 0
    else:
        is_right = isinstance(value, int | float) and not is_bool
    if not is_right:
        raise invalid_type(param, form, value)
    return value
