"""The request body of Responses as a typed struct with its bounds.

Owns field names, types and ranges; items and tools are items.py's and tools.py's. Every optional
field accepts null, which means omitted. Words from a list are strings here: messages name the list.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from smmf_core.api.openai.schema import (
    ChatBody,
    CountOrZero,
    Penalty,
    Priority,
    Ratio,
    Text,
    TopLogprobs,
)
from smmf_core.api.responses.tools import Tools

_INT32_MAX = 2**31 - 1
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
MIN_OUTPUT_TOKENS = 16  # OpenAI's

Items = Annotated[list[dict[str, Any]], Meta(min_length=1)]


class Reasoning(msgspec.Struct, gc=False):
    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class TextConfig(msgspec.Struct, gc=False):
    format: dict[str, Any] | None = None
    verbosity: str | None = None


class StreamOptions(msgspec.Struct, gc=False):
    include_obfuscation: bool | None = None


class InputBody(msgspec.Struct, kw_only=True, gc=False):
    """`POST /v1/responses/input_tokens`: what a prompt is made of."""

    model: Text
    input: str | Items | None = None
    instructions: str | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    text: TextConfig | None = None
    truncation: str | None = None
    previous_response_id: str | None = None
    conversation: str | dict[str, Any] | None = None
    # extensions
    chat_template_kwargs: dict[str, Any] | None = None
    keep_alive: float | str | None = None
    smmf: dict[str, Any] | None = None


class ResponsesBody(InputBody, kw_only=True, gc=False):
    """`POST /v1/responses`"""

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_output_tokens: Annotated[int, Meta(ge=MIN_OUTPUT_TOKENS, le=_INT32_MAX)] | None = None
    max_tool_calls: Annotated[int, Meta(ge=1, le=_INT32_MAX)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Ratio | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    top_logprobs: TopLogprobs | None = None
    include: list[str] | None = None
    store: bool | None = None
    background: bool | None = None
    prompt: dict[str, Any] | None = None
    context_management: list[Any] | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None
    # extensions
    seed: Annotated[int, Meta(ge=_INT64_MIN, le=_INT64_MAX)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=_INT32_MAX)] | None = None
    ignore_eos: bool | None = None
    min_tokens: CountOrZero | None = None
    priority: Priority | None = None
    smmf_echo: dict[str, Any] | None = None


class ResponsesChat(ChatBody, kw_only=True, gc=False):
    """The chat that a body asks for, with the body: answers repeat its settings."""

    asked: InputBody
    called: Tools
