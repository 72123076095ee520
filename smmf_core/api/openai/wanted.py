"""What all requests that are answered whole have in common, be it for vectors, scores or tokens.

Owns their shape for the Router and the rules that they share; must not know a certain one.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from smmf_core.api.openai.extensions import Require, keep_alive_seconds, parse_require
from smmf_core.api.openai.schema import Priority, Text
from smmf_core.errors import ApiError
from smmf_core.messages import Detokenize, Embed, Tokenize, Usage

MAX_INPUTS = 2048  # OpenAI's bound


class Common(msgspec.Struct, kw_only=True, gc=False):
    """What any of their bodies may hold. Every optional field accepts null, which means omitted."""

    model: Text
    # extensions
    priority: Priority | None = None
    keep_alive: float | str | None = None
    smmf: dict[str, Any] | None = None


class WholeRenderer(Protocol):
    model: str  # as the answer calls it

    def response(self, result: Any, usage: Usage) -> bytes: ...


class Wanted(msgspec.Struct, gc=False):
    """One valid request. The Router fills `submit.key` and the like."""

    submit: Embed | Tokenize | Detokenize
    renderer: WholeRenderer
    input_bytes: int  # an estimate
    keep_alive_s: float | None
    require: Require | None


def make_wanted(
    body: Common, submit: Embed | Tokenize | Detokenize, renderer: WholeRenderer, input_bytes: int
) -> Wanted:
    """Raises ApiError (400) for a wrong extension."""
    keep_alive_s, require = keep_alive_seconds(body.keep_alive), parse_require(body.smmf)
    return Wanted(submit, renderer, input_bytes, keep_alive_s, require)


def check_count(name: str, count: int) -> None:
    if count > MAX_INPUTS:
        text = f"array too long. Expected an array with maximum length {MAX_INPUTS}"
        got = f"but got an array with length {count} instead."
        raise ApiError("array_above_max_length", f"Invalid '{name}': {text}, {got}", name)


def check_texts(name: str, texts: list[str]) -> None:
    """Raises ApiError (400) for too many, or an empty one."""
    check_count(name, len(texts))
    if "" in texts:
        raise empty_text(f"{name}[{texts.index('')}]")


def empty_text(name: str) -> ApiError:
    return ApiError("invalid_value", f"Invalid '{name}': it cannot be an empty string.", name)


def render_usage(usage: Usage) -> bytes:
    return b'{"prompt_tokens":%d,"total_tokens":%d}' % (usage.prompt, usage.prompt)
