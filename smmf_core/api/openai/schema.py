"""The request bodies of chat and text completions as typed structs with their bounds.

Owns field names, types and ranges (openai-openapi 2.3.0 plus our extensions); must not hold rules
that join several fields. Every optional field accepts null, which means omitted.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

MAX_CHOICES = 128  # OpenAI's bound for n; here also for prompts x n
_INT32_MAX = 2**31 - 1
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1

Count = Annotated[int, Meta(ge=1, le=_INT32_MAX)]
CountOrZero = Annotated[int, Meta(ge=0, le=_INT32_MAX)]
TokenId = Annotated[int, Meta(ge=0, le=_INT32_MAX)]
Priority = Annotated[int, Meta(ge=-_INT32_MAX, le=_INT32_MAX)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Ratio = Annotated[float, Meta(ge=0, le=1)]
Text = Annotated[str, Meta(min_length=1)]
Stops = Annotated[list[Text], Meta(max_length=4)]
Tokens = Annotated[list[TokenId], Meta(min_length=1)]
Prompts = Annotated[list[str | TokenId | Tokens], Meta(min_length=1)]
Messages = Annotated[list[dict[str, Any]], Meta(min_length=1)]
TopLogprobs = Annotated[int, Meta(ge=0, le=20)]
NoList = Annotated[list[Any], Meta(max_length=0)]
NoText = Annotated[str, Meta(max_length=0)]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class StreamOptions(msgspec.Struct, gc=False):
    """`stream_options`; `continuous_usage_stats` is vLLM's."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class Elsewhere(msgspec.Struct, kw_only=True, gc=False):
    """What other servers do and this one does not: only values that change nothing are taken."""

    guided_json: None = None  # vLLM's; response_format is for that
    guided_regex: None = None
    guided_choice: None = None
    guided_grammar: None = None
    structured_outputs: None = None
    bad_words: NoList | None = None
    allowed_token_ids: NoList | None = None
    length_penalty: Annotated[float, Meta(ge=1, le=1)] | None = None
    use_beam_search: bool | None = None  # false
    skip_special_tokens: bool | None = None  # true
    truncate_prompt_tokens: None = None
    prompt_logprobs: None = None
    prompt_embeds: None = None
    chat_template: None = None
    documents: NoList | None = None
    grammar: NoText | None = None  # llama.cpp's
    json_schema: None = None
    typical_p: Annotated[float, Meta(ge=1, le=1)] | None = None
    mirostat: Annotated[int, Meta(ge=0, le=0)] | None = None


class Body(Elsewhere, kw_only=True, gc=False):
    """What both dialects share."""

    refused: ClassVar[frozenset[str]] = frozenset(Elsewhere.__struct_fields__)

    may_be_cut: ClassVar[bool] = False  # max_tokens beyond the context's end are no error

    model: Text
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    max_completion_tokens: CountOrZero | None = None
    max_tokens: CountOrZero | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Ratio | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    seed: Annotated[int, Meta(ge=_INT64_MIN, le=_INT64_MAX)] | None = None
    stop: Text | Stops | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    # extensions
    ignore_eos: bool | None = None
    min_tokens: CountOrZero | None = None
    top_k: Annotated[int, Meta(ge=-1, le=_INT32_MAX)] | None = None
    min_p: Ratio | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=100)] | None = None
    stop_token_ids: list[TokenId] | None = None
    include_stop_str_in_output: bool | None = None
    priority: Priority | None = None
    keep_alive: float | str | None = None
    smmf: dict[str, Any] | None = None
    smmf_echo: dict[str, Any] | None = None


class ChatBody(Body, kw_only=True, gc=False):
    """`POST /v1/chat/completions`"""

    messages: Messages
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    reasoning_effort: Effort | None = None
    modalities: list[str] | None = None
    functions: list[Any] | None = None
    function_call: str | dict[str, Any] | None = None
    # extensions
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None


class CompletionBody(Body, kw_only=True, gc=False):
    """`POST /v1/completions`"""

    default_tokens: ClassVar[int | None] = 16  # OpenAI's

    prompt: str | Prompts
    logprobs: TopLogprobs | None = None  # OpenAI allows 5
    echo: bool | None = None
    best_of: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    suffix: str | None = None
    # extensions
    response_format: dict[str, Any] | None = None  # vLLM's


Request = ChatBody | CompletionBody
